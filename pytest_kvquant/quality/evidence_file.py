"""Evidence on disk: the per-token figures of one cell, with the conditions they were taken under.

One ``.npz`` file per cell: a column per figure, each of shape ``(chunks, scored)``, and the
conditions as JSON. Log figures and margins are float32 (six digits more than any gate needs, half
the size), token ids as narrow as the vocabulary allows; 24 bytes a token and what zlib saves of
it. Every NumPy opens it: ``numpy.load(path)["kl"]``.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.errors import RunRefused
from pytest_kvquant.machine.files import replace
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules

SCHEMA = "pytest-kvquant-evidence/1"
SUFFIX = ".npz"

FLOATS = ("nll_reference", "nll_cell", "kl", "delta_p", "margin")
TOKENS = ("top_reference", "top_cell")


class EvidenceError(RunRefused):
    """Evidence that cannot be read or written."""


class EvidenceConditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures are figures of."""

    pair: str
    model: str
    model_fingerprint: str
    embedded: bool
    """Whether it is the embedded model, which has budgets of its own."""
    corpus: str
    corpus_fingerprint: str
    tokens_hash: str
    """SHA-256 over the tokens of all chunks that could have been drawn, 16 hex digits."""
    chunk_numbers: tuple[int, ...]
    """Numbers of the drawn chunks within the corpus, in order."""
    order: str
    seed: int
    shape: BatchShape
    library: str
    library_hash: str
    device: str
    environment: dict[str, str]
    """Toggles that the configuration set for the worker."""
    budgets: dict[str, float]
    """By key; a gate that was declared later has its default."""
    rules: Rules
    tie_band: float
    figures_in_run: int
    """Gated figures of the run, among which Holm shares alpha."""
    digests: tuple[str, ...]
    """Hash of the scored logits of each chunk; those of rows are not kept."""
    plugin: str
    schema: str = SCHEMA


class Kept(NamedTuple):
    """One cell's evidence, as it came from its file."""

    conditions: EvidenceConditions
    columns: TokenFigures
    """Each of shape ``(chunks, scored)``; ``digest`` is zero throughout."""

    def evidence(self, *, tail_over: float | None = None) -> Evidence:
        """The evidence as the gates take it, for another tail bound if one is given (nats)."""
        conditions = self.conditions
        chunks, scored = self.columns.kl.shape
        if tail_over is None:
            tail_over = conditions.budgets["kl_tail_over"]
        evidence = Evidence(chunks, scored, tail_over=tail_over, tie_band=conditions.tie_band)
        for chunk in range(chunks):
            figures = TokenFigures._make(column[chunk] for column in self.columns)
            evidence.put(chunk, 0, figures)
        return evidence


def write(folder: Path, conditions: EvidenceConditions, evidence: Evidence) -> Path:
    """Keep the complete chunks of a cell in ``folder``, which is made; returns the file.

    A cell measured again replaces its file in one step.

    Raises:
        EvidenceError: the folder cannot be written.
    """
    tokens = evidence.tokens()
    narrow = (
        np.uint16 if max(tokens.top_cell.max(), tokens.top_reference.max()) < 1 << 16 else "<i4"
    )
    columns = {name: getattr(tokens, name).astype(np.float32) for name in FLOATS}
    columns |= {name: getattr(tokens, name).astype(narrow) for name in TOKENS}
    columns["conditions"] = np.frombuffer(msgspec.json.encode(conditions), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)  # type: ignore[arg-type, unused-ignore]
    path = _path(folder, conditions.pair)
    _require_evidence(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(path, buffer.getvalue())
    except OSError as error:
        raise EvidenceError(
            f"The evidence of {conditions.pair} cannot be kept in {folder} ({error.strerror}); "
            "choose another folder with --kv-evidence."
        ) from None
    return path


def has(folder: Path, pair: str, digests: tuple[str, ...]) -> bool:
    """Whether the evidence of a pair is there, of the very logits with these digests."""
    try:
        return read(_path(folder, pair)).conditions.digests == digests
    except EvidenceError:
        return False


def _path(folder: Path, pair: str) -> Path:
    return folder / (pair.replace("/", "--") + SUFFIX)


def require_ours(folder: Path) -> None:
    """See before the first cell that no file of a cell's name would have to be written over.

    Raises:
        EvidenceError: one is something else than evidence of an earlier run.
    """
    for path in sorted(folder.glob(f"*--*{SUFFIX}")):
        _require_evidence(path)


def _require_evidence(path: Path) -> None:
    if path.exists() and not _is_evidence(path):
        raise EvidenceError(
            f"{path} is not evidence, or damaged, and is not written over; move it away."
        )


def _is_evidence(path: Path) -> bool:
    """Whether a file is of this kind, whatever its version."""
    try:
        with zipfile.ZipFile(path) as file:
            return "conditions.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read(path: Path) -> Kept:
    """Read one cell's evidence.

    Raises:
        EvidenceError: no such file, not evidence, or of a version that is not understood.
    """
    try:
        with np.load(path) as file:
            told = _with_flat_budgets(msgspec.json.decode(file["conditions"].tobytes()))
            conditions = msgspec.convert(told, EvidenceConditions)
            floats = {name: file[name].astype(np.float64) for name in FLOATS}
            ids = {name: file[name].astype(np.int32) for name in TOKENS}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, msgspec.DecodeError) as error:
        raise EvidenceError(f"{path} is not evidence kept by --kv-evidence ({error}).") from None
    if conditions.schema != SCHEMA:
        raise EvidenceError(
            f"{path} is of version {conditions.schema}; this program reads {SCHEMA}. Measure again."
        )
    digest = np.zeros(floats["kl"].shape, np.uint64)
    return Kept(conditions, TokenFigures(**floats, **ids, digest=digest))


def _with_flat_budgets(told: object) -> object:
    """Earlier versions kept the budgets of further gates apart, under ``more``."""
    budgets = told.get("budgets") if isinstance(told, dict) else None
    if isinstance(told, dict) and isinstance(budgets, dict):
        own = {key: value for key, value in budgets.items() if key != "more"}
        return told | {"budgets": own | budgets.get("more", {})}
    return told


def read_folder(folder: Path) -> list[Kept]:
    """All evidence of a folder, in the order of the cells' names.

    Raises:
        EvidenceError: there is none, or a file cannot be read.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise EvidenceError(f"{folder} holds no evidence; keep some with --kv-evidence {folder}.")
    return [read(path) for path in paths]
