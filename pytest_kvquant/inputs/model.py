"""A GGUF model: what its header says, its files, and what can be refused before anything loads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs import strange
from pytest_kvquant.inputs.caches import (
    CachedLayer,
    CacheShape,
    Windows,
    caches,
    head_share,
    kv_heads,
    sharing,
    windows,
)
from pytest_kvquant.inputs.choice import chosen
from pytest_kvquant.inputs.fingerprint import Tell, fingerprint
from pytest_kvquant.inputs.gguf_header import MAGIC, BadHeader, Header, Value
from pytest_kvquant.inputs.gguf_header import read_header as read_gguf_header
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.shards import siblings
from pytest_kvquant.inputs.weights import Weights, weights
from pytest_kvquant.machine.escape import one_line

MOST_LAYERS = 4096
"""No model comes near it; a damaged header claims any number."""
MOST_WIDTH = 1 << 24
"""Elements of a head or an embedding; likewise."""

GIVE = "give a GGUF file with --kv-model"


LONGEST_NAME = 120
"""Characters of a model's name: it stands in every line of conditions."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF model says about itself. Sizes in bytes, dimensions in elements."""

    path: str
    """The file that llama.cpp is given: of a split model the first."""
    name: str
    architecture: str
    fingerprint: str
    """SHA-256 over every byte of all its files, 16 hex digits; empty where nobody asked for it."""
    size: int
    """Of all its files."""
    files: tuple[str, ...] = ()
    """All its files, in order; empty: ``path`` alone."""
    context_trained: int
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: tuple[int, ...]
    """KV heads per layer; 0 for a layer without KV cache."""
    sharing: tuple[int, ...] = ()
    """Layers that read the KV cache of an earlier one."""
    head_dim_k: int
    head_dim_v: int
    causal: bool
    window: int = 0
    """Tokens that a sliding-window layer looks back on; 0: no layer has a window."""
    windowed: tuple[bool, ...] | None = ()
    """Per layer, whether it has the window; empty: none has, ``None``: the header does not say."""
    caches: tuple[CacheShape, ...] = ()
    """What llama.cpp keeps for it, by the header."""
    weights: Weights | None = None
    """What a token costs in weights; ``None``: not known."""

    def holds(self, gpu_layers: int) -> bool:
        """Whether so many layers on a GPU are all of them: -1 asks for that, and so does 99."""
        return gpu_layers < 0 or gpu_layers > self.n_layer


def simple_caches(model: Model) -> tuple[CacheShape, ...]:
    """The caches of a model whose layers differ in nothing but their heads and windows."""
    flags = model.windowed or (False,) * model.n_layer
    layers = [
        (flags[number], CachedLayer(number, heads, model.head_dim_k, model.head_dim_v))
        for number, heads in enumerate(model.n_head_kv)
        if heads
    ]
    plain = tuple(layer for windowed, layer in layers if not windowed)
    window = tuple(layer for windowed, layer in layers if windowed)
    found = (CacheShape("attention", plain), CacheShape("window", window))
    return tuple(shape for shape in found if shape.layers)


def read_model(
    path: Path, *, hashed: bool = True, hashes: Path | None = None, tell: Tell | None = None
) -> Model:
    """Read the header of a GGUF model (not its weights), and hash all its files.

    Args:
        path: the file, any of the files of a split model, a folder with one model, a pattern, or
            the name of a model in another program's cache (:mod:`.choice`).
        hashed: whether the fingerprint is wanted; it reads every byte, once.
        hashes: folder where hashes of large files are kept.
        tell: told before a large file is hashed.

    Raises:
        ModelError: missing, empty, not GGUF, truncated, or not a text-generating model.
    """
    path = chosen(path)
    if not path.is_file():
        raise ModelError(f"The model {path} does not exist; {GIVE}.")
    try:
        return _read(path, hashed, hashes, tell)
    except BadHeader as error:
        raise ModelError(f"The model {path} {error}.") from None
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read: {error.strerror}.") from None


def read_header(path: Path) -> Mapping[str, Value]:
    """All fields of a GGUF header by name, of long lists only the length.

    Raises:
        ModelError: it is damaged.
    """
    try:
        return read_gguf_header(path).fields
    except BadHeader as error:
        raise ModelError(f"The model {path} {error}.") from None


def _read(path: Path, hashed: bool, hashes: Path | None, tell: Tell | None) -> Model:
    _check_opening(path)
    header = _header(path)
    files = siblings(path, Fields(header.fields, "").count("split.count", 0))
    headers = [header if file == path else _header(file) for file in files]
    architecture = _architecture(headers[0])
    for file, one in zip(files, headers, strict=True):
        _check_size(file, one, "its tensors" if len(files) == 1 else f"the tensors of {file.name}")
    tensors = [tensor for one in headers for tensor in one.tensors]
    if told := strange.kind(headers[0].fields, architecture, tensors):
        raise BadHeader(f"({architecture}) {told}")
    model = _describe(headers[0], architecture, files)
    cost = weights(tensors, Fields(headers[0].fields, architecture))
    model = msgspec.structs.replace(model, weights=cost)
    if not hashed:
        return model
    return msgspec.structs.replace(model, fingerprint=fingerprint(files, hashes, tell))


def _check_size(file: Path, header: Header, what: str) -> None:
    size = file.stat().st_size
    if header.expected_size > size:
        raise BadHeader(
            f"is truncated: {what} need {header.expected_size:,} bytes, the file has {size:,}; "
            "download or convert it again"
        )


def _check_opening(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == MAGIC:
        return
    if not head:
        raise BadHeader(f"is empty; {GIVE}")
    if told := strange.opening(head):
        raise BadHeader(told)
    raise BadHeader(f"is not a GGUF file (it starts with {head[:4]!r}); {GIVE}")


def _header(path: Path) -> Header:
    try:
        return read_gguf_header(path)
    except BadHeader as error:
        if "GGUF file" in str(error):  # of another version, or of the other byte order
            raise
        raise BadHeader(f"{error}; download or convert it again") from None


def _architecture(header: Header) -> str:
    value = Fields(header.fields, "").text("general.architecture")
    if value is None:
        raise BadHeader("has no 'general.architecture' in its header; convert it again")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise BadHeader(f"has {value[:60]!r} for an architecture, so its header is damaged")
    return value


def _describe(header: Header, architecture: str, files: tuple[Path, ...]) -> Model:
    of = Fields(header.fields, architecture)
    layers = of.count("{arch}.block_count", most=1 << 64)
    if not 0 < layers <= MOST_LAYERS:
        raise BadHeader(
            f"claims {layers:,} layers, so its header is damaged; download or convert it again"
        )
    width = of.count("{arch}.embedding_length", most=MOST_WIDTH)
    if not width:
        raise BadHeader("claims an embedding of 0 elements, so its header is damaged")
    heads = of.counts("{arch}.attention.head_count", layers, 0)
    window: Windows = windows(of, architecture, layers)
    share = head_share(of)
    name = of.text("general.name")
    return Model(
        path=str(files[0]),
        name=one_line(name or files[0].stem, most=LONGEST_NAME),
        architecture=architecture,
        fingerprint="",
        size=sum(file.stat().st_size for file in files),
        files=tuple(str(file) for file in files),
        context_trained=of.count("{arch}.context_length", 0),
        n_layer=layers,
        n_embd=width,
        n_head=max(heads),
        n_head_kv=kv_heads(of, architecture, layers),
        sharing=tuple(sorted(sharing(of, architecture, layers))),
        head_dim_k=of.count("{arch}.attention.key_length", share, most=MOST_WIDTH),
        head_dim_v=of.count("{arch}.attention.value_length", share, most=MOST_WIDTH),
        causal=True,
        window=window.length,
        windowed=window.layers,
        caches=caches(of, architecture, layers, window),
    )
