"""GGUF metadata: geometry, fingerprint, and what can be refused before anything is loaded."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pytest_kvquant.errors import ModelError

MOST_LAYERS = 4096
"""No model comes near it; a damaged header claims any number."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF file says about itself. Sizes in bytes, dimensions in elements."""

    path: str
    name: str
    architecture: str
    fingerprint: str
    """SHA-256 over the size, the header and evenly spaced blocks of the file, 16 hex digits."""
    size: int
    context_trained: int
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: tuple[int, ...]
    """KV heads per layer; 0 for a layer without KV cache."""
    head_dim_k: int
    head_dim_v: int
    causal: bool
    window: int = 0
    """Tokens that a sliding-window layer looks back on; 0: no layer has a window."""
    windowed: tuple[bool, ...] | None = ()
    """Per layer, whether it has the window; empty: none has, ``None``: the header does not say."""


def read_model(path: Path) -> Model:
    """Read the header of a GGUF file (not its weights).

    Raises:
        ModelError: missing, empty, not GGUF, truncated, or not a text-generating model.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(f"The model {path} {what}; give a GGUF file with --kv-model.")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read: {error.strerror}.") from None
    if magic != b"GGUF":
        what = "is empty" if size == 0 else f"is not a GGUF file (it starts with {magic!r})"
        raise ModelError(f"The model {path} {what}; give a GGUF file with --kv-model.")
    fields = _read_fields(path, size)
    architecture = _text(fields, "general.architecture", path)
    return _describe(path, size, architecture, fields)


def read_header(path: Path) -> dict[str, Any]:
    """All fields of a GGUF header by name, but for long arrays.

    Raises:
        ModelError: it is damaged.
    """
    return _read_fields(path, path.stat().st_size)


def _read_fields(path: Path, size: int) -> dict[str, Any]:
    header = _header_reader()
    try:
        reader = header(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(
            f"The model {path} ends inside its header or the header is damaged ({error}); "
            "download or convert it again."
        ) from None
    if reader.expected_size > size:
        raise ModelError(
            f"The model {path} is truncated: its tensors need {reader.expected_size:,} bytes, "
            f"the file has {size:,}; download or convert it again."
        )
    return fields


def _header_reader() -> type[Any]:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
    from gguf.constants import GGUFValueType

    class HeaderReader(GGUFReader):
        """``GGUFReader`` without the vocabulary and without views of the tensors.

        The library makes several NumPy views per token: 0.5 s for 8,192 tokens, 20 s and more
        for today's vocabularies, on every run. The arrays are stepped over instead.
        """

        expected_size: int

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            item = int(self._get(orig_offs, np.uint32)[0])
            count = int(self._get(orig_offs + 4, np.uint64)[0])
            if item != GGUFValueType.STRING:
                return (
                    super()._get_field_parts(orig_offs, raw_type)
                    if count <= 4096
                    else (
                        12 + count * np.dtype(self.gguf_scalar_to_np[GGUFValueType(item)]).itemsize,
                        [],
                        [],
                        [],
                    )
                )
            raw = self.data.data
            end = orig_offs + 12
            for _ in range(count):
                end += 8 + int.from_bytes(raw[end : end + 8], "little")
                if end > len(raw):
                    raise ValueError("a string runs past the end of the file")
            return end - orig_offs, [], [], []

        def _build_tensors(self, start_offs: int, fields: list[Any]) -> None:
            ends = [start_offs]
            for field in fields:
                _, _, _, dims, raw_type, offset = field.parts
                start = start_offs + int(offset[0])
                try:
                    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(int(raw_type[0]))]
                except (ValueError, KeyError):
                    ends.append(start)  # a fork's own weight type: only its start is known
                    continue
                elements = math.prod(int(dim) for dim in dims)
                ends.append(start + elements // block * block_bytes)
            self.expected_size = max(ends)

    return HeaderReader


def _describe(path: Path, size: int, architecture: str, fields: dict[str, Any]) -> Model:
    def number(key: str, default: int | None = None) -> int:
        value = fields.get(f"{architecture}.{key}", default)
        if value is None:
            raise ModelError(f"The model {path} has no '{architecture}.{key}' in its header.")
        return int(value)

    pooling = fields.get(f"{architecture}.pooling_type", 0)
    causal = bool(fields.get(f"{architecture}.attention.causal", True))
    if not causal or pooling not in (0, None) or architecture in _EMBEDDING_ARCHITECTURES:
        raise ModelError(
            f"The model {path} ({architecture}) computes embeddings, not next-token "
            "probabilities; KV-cache quality needs a text-generating model."
        )
    n_layer, n_embd = number("block_count"), number("embedding_length")
    if n_layer > MOST_LAYERS:
        raise ModelError(
            f"The model {path} claims {n_layer:,} layers, so its header is damaged; download or "
            "convert it again."
        )
    n_head = _per_layer(fields.get(f"{architecture}.attention.head_count", 0), n_layer)
    n_head_kv = _per_layer(
        fields.get(f"{architecture}.attention.head_count_kv", list(n_head)), n_layer
    )
    heads = max(n_head) if n_head else 0
    head_dim = n_embd // heads if heads else 0
    window, windowed = _windows(architecture, n_layer, fields)
    return Model(
        path=str(path),
        name=str(fields.get("general.name") or path.stem),
        architecture=architecture,
        fingerprint=_fingerprint(path, size),
        size=size,
        context_trained=number("context_length", 0),
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=heads,
        n_head_kv=_with_cache(n_head_kv, architecture, fields),
        head_dim_k=number("attention.key_length", head_dim),
        head_dim_v=number("attention.value_length", head_dim),
        causal=causal,
        window=window,
        windowed=windowed,
    )


_EMBEDDING_ARCHITECTURES = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
     "neo-bert", "eurobert", "gemma-embedding", "t5encoder", "clip", "wavtokenizer-dec"}
)  # fmt: skip


def _per_layer(value: Any, n_layer: int) -> tuple[int, ...]:
    if isinstance(value, list):
        return tuple(int(item) for item in value)
    return (int(value),) * n_layer


def _with_cache(
    n_head_kv: tuple[int, ...], architecture: str, fields: dict[str, Any]
) -> tuple[int, ...]:
    """KV heads per layer, 0 where the layer has no KV cache of its own.

    As llama.cpp loads it: recurrent layers are listed, or every layer but each
    ``full_attention_interval``-th is one; the last layers may predict further tokens or share the
    cache of an earlier one.
    """
    count = len(n_head_kv)
    recurrent = fields.get(f"{architecture}.attention.recurrent_layers")
    interval = fields.get(f"{architecture}.full_attention_interval")
    if interval is None and architecture in _LINEAR_ATTENTION:
        interval = 4
    if isinstance(recurrent, list):
        without = {layer for layer, flag in enumerate(recurrent) if flag}
    elif interval:
        without = {layer for layer in range(count) if (layer + 1) % int(interval)}
    else:
        without = set()
    for key in ("nextn_predict_layers", "attention.shared_kv_layers"):
        last = int(fields.get(f"{architecture}.{key}", 0) or 0)
        without |= set(range(count - last, count))
    return tuple(0 if layer in without else heads for layer, heads in enumerate(n_head_kv))


_LINEAR_ATTENTION = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""Hybrid architectures whose header may leave the interval out; llama.cpp then takes 4."""


def _windows(
    architecture: str, n_layer: int, fields: dict[str, Any]
) -> tuple[int, tuple[bool, ...] | None]:
    """Length of the sliding window, and the layers that have it, as llama.cpp loads them.

    They are listed, or all but each so many-th have it. Architectures that are not known here may
    read neither key: theirs is an open question.
    """
    known = _WINDOWS.get(architecture)
    window = fields.get(f"{architecture}.attention.sliding_window", known.length if known else 0)
    if not isinstance(window, int) or window <= 0:
        return 0, ()
    pattern = fields.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        layers = tuple(bool(flag) for flag in pattern)
        return window, layers if len(layers) == n_layer else None
    if known is None:
        return window, None
    period = known.period if pattern is None else int(pattern)
    return window, tuple(not period or layer % period < period - 1 for layer in range(n_layer))


class _Windows(NamedTuple):
    """What llama.cpp takes where the header leaves it out."""

    period: int
    """One layer in so many, the last of them, has no window."""
    length: int = 0
    """Tokens; 0: no window then."""


_WINDOWS = {
    "afmoe": _Windows(4),
    "cohere2": _Windows(4),
    "exaone-moe": _Windows(4),
    "gemma2": _Windows(2, 4096),
    "gemma3": _Windows(6),
    "gemma3n": _Windows(5),
    "gpt-oss": _Windows(2),
    "llama4": _Windows(4, 8192),
    "mellum": _Windows(4),
    "olmo2": _Windows(4),
    "plamo3": _Windows(8),
}


def _text(fields: dict[str, Any], key: str, path: Path) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise ModelError(f"The model {path} has no '{key}' in its header; convert it again.")
    return value


def _fingerprint(path: Path, size: int, *, blocks: int = 64, block: int = 1 << 16) -> str:
    """A hash that costs milliseconds on a 100 GB file: header and evenly spaced blocks."""
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        for index in range(1, blocks):
            file.seek(size * index // blocks)
            digest.update(file.read(block))
    return digest.hexdigest()[:16]
