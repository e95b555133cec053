"""The file of an accepted cell: what it holds, and how it is read and written."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_kvquant.errors import KVQuantError
from pytest_kvquant.machine.files import read_regular
from pytest_kvquant.results.file import BASELINE

SCHEMA = f"{BASELINE}1"
SUFFIX = ".json"


class BaselineError(KVQuantError):
    """A baseline that cannot be read."""


class BaselineConditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the figures are figures of."""

    model: str
    model_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    ctx: int
    scored: int
    library: str
    library_hash: str
    device: str
    cpu: str
    threads: int
    batch: int
    ubatch: int
    sequences: int
    gpu_layers: int
    environment: dict[str, str]
    """Variables that the configuration set for the workers."""
    plugin: str
    """Version of pytest-kvquant."""


class Chunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures of one chunk, rounded to what can matter."""

    tokens: str
    """SHA-256 over its tokens, 8 hex digits."""
    logits: str
    """Hash of the scored logits."""
    kl: float
    """Mean KL, nats; six significant digits."""
    ln_ppl: float
    """Mean of nll(cell) − nll(reference), nats."""
    nll: float
    """Mean of nll(cell), nats."""
    top1: float
    """Share of tokens with the same argmax."""


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Means over the chunks, for people who read a diff."""

    kl_mean: float
    ln_ppl: float
    ppl: float
    top1: float


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of a file."""

    schema: str
    pair: str
    summary: Summary
    floor: float
    """Noise floor of the machine, mean KL in nats."""
    conditions: BaselineConditions
    chunks: tuple[Chunk, ...]


def encode(baseline: Baseline) -> str:
    """A baseline as JSON with a line for every condition and every chunk.

    Raises:
        BaselineError: it would not read back, because a figure is not a number.
    """
    head = {**msgspec.to_builtins(baseline), "chunks": []}
    text = msgspec.json.format(msgspec.json.encode(head), indent=2).decode()
    rows = ",\n".join(f"    {msgspec.json.encode(chunk).decode()}" for chunk in baseline.chunks)
    text = text.removesuffix("[]\n}") + "[\n" + rows + "\n  ]\n}\n"
    decode(text, f"the baseline of {baseline.pair}")
    return text


def decode(text: str, name: str) -> Baseline:
    """Read what :func:`encode` wrote.

    Args:
        name: what to call it in a complaint.

    Raises:
        BaselineError: not a baseline, or of another version.
    """
    try:
        baseline = msgspec.json.decode(text, type=Baseline)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BaselineError(f"{name} is not a baseline: {error}.") from None
    if baseline.schema != SCHEMA:
        raise BaselineError(
            f"{name} is of schema '{baseline.schema}'; this version reads '{SCHEMA}'."
        )
    if not baseline.chunks:
        raise BaselineError(f"{name} is not a baseline: it has no chunks.")
    return baseline


def read(path: Path) -> Baseline | None:
    """The baseline in a file; ``None`` where there is no such file.

    Raises:
        BaselineError: it cannot be read, or is damaged.
    """
    try:
        return decode(read_regular(path).decode("utf-8"), str(path))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise BaselineError(f"{path} is not a baseline: {error}.") from None
    except OSError as error:
        raise BaselineError(f"{path} cannot be read: {error.strerror}.") from None
