"""What was accepted earlier: one JSON file per cell, and the drift from it.

A baseline keeps the figures per chunk with a hash of the chunk's tokens, the summary, and the
conditions. Figures are compared on the same tokens only: chunk by chunk, as far as both go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.baselines.file import (
    SCHEMA,
    SUFFIX,
    Baseline,
    BaselineConditions,
    BaselineError,
    Chunk,
    Summary,
    read,
)
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.drift import SPREAD, Drift, drift
from pytest_kvquant.results.baseline import BaselineRecord, BaselinesRecord
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.drift_words import sentence
from pytest_kvquant.results.library import Library

SUBJECT = {
    "model_fingerprint": "model",
    "corpus_fingerprint": "corpus",
    "ctx": "tokens per chunk",
    "scored": "scored tokens per chunk",
}
"""Conditions that must agree, and their names for people: figures of other subjects say nothing."""

ROUNDING = {
    "library_hash": "build",
    "device": "device",
    "cpu": "processor",
    "threads": "threads",
    "batch": "n_batch",
    "ubatch": "n_ubatch",
    "sequences": "sequences per batch",
    "gpu_layers": "GPU layers",
    "environment": "variables",
}
"""Conditions that may differ: they move figures by rounding, within the tolerance."""

ARCHITECTURES = {"aarch64": "arm64", "AMD64": "x86_64"}
"""Names that systems have for one architecture."""


def strangers(before: BaselineConditions, after: BaselineConditions) -> list[str]:
    """Names of what differs so that figures cannot be compared at all."""
    return [name for key, name in SUBJECT.items() if getattr(before, key) != getattr(after, key)]


def differences(before: BaselineConditions, after: BaselineConditions) -> tuple[str, ...]:
    """Names of what differs and moves figures by rounding."""
    names = ROUNDING.items()
    return tuple(name for key, name in names if getattr(before, key) != getattr(after, key))


def judge(before: Baseline, after: Baseline) -> Drift | None:
    """The drift of a cell from its baseline; ``None`` where they have no chunk in common.

    ``f16/f16`` is compared with itself, so that its KL and its ln PPL ratio are zero whatever the
    build does: what is compared there is its own perplexity.
    """
    both = zip(before.chunks, after.chunks, strict=False)
    shared = list(takewhile(lambda pair: pair[0].tokens == pair[1].tokens, both))
    if not shared or strangers(before.conditions, after.conditions):
        return None
    old, new = (_columns(after.pair, chunks) for chunks in zip(*shared, strict=True))
    foreign = set(differences(before.conditions, after.conditions)) - {ROUNDING["library_hash"]}
    floor = max(before.floor, after.floor)
    found = drift(old, new, floor=floor, spread=SPREAD if foreign else 0.0)
    if found.verdict == "equal" and any(one.logits != other.logits for one, other in shared):
        return msgspec.structs.replace(found, verdict="changed")
    return found


def _columns(pair: str, chunks: Iterable[Chunk]) -> dict[str, list[float]]:
    rows = list(chunks)
    ln_ppl = [row.nll if pair == str(REFERENCE) else row.ln_ppl for row in rows]
    return {"kl": [row.kl for row in rows], "ln_ppl": ln_ppl, "top1": [row.top1 for row in rows]}


class Baselines:
    """The baselines of one run.

    Args:
        root: the folder of all baselines (``--kv-baselines``).
        hardware: see :func:`hardware_class`.
        chunks: tokens of the run in the order drawn, shape ``(chunks, ctx)``.
    """

    def __init__(
        self,
        root: Path,
        hardware: str,
        conditions: BaselineConditions,
        chunks: npt.NDArray[np.int32],
    ) -> None:
        subject = f"{slug(conditions.corpus)}-c{conditions.ctx}"
        self._root = root
        self.folder = root / hardware / slug(conditions.model) / subject
        self._conditions = conditions
        self._tokens = [hashlib.sha256(chunk.tobytes()).hexdigest()[:8] for chunk in chunks]
        self._records: dict[str, BaselineRecord] = {}

    def path(self, pair: str) -> Path:
        """The file of a pair, written ``K/V``."""
        return self.folder / f"{pair.replace('/', '-')}{SUFFIX}"

    def of(self, cell: Cell, floor: float) -> Baseline:
        """A measured cell as a baseline.

        Args:
            floor: noise floor, mean KL in nats.
        """
        columns = cell.per_chunk
        mean = {name: float(np.mean(values)) for name, values in columns.items()}
        rows = [
            Chunk(
                tokens=tokens,
                logits=digest,
                kl=_significant(kl),
                ln_ppl=round(ln_ppl, 7),
                nll=round(nll, 7),
                top1=round(top1, 6),
            )
            for tokens, digest, kl, ln_ppl, nll, top1 in zip(
                self._tokens[: len(cell.digests)],
                cell.digests,
                columns["kl"],
                columns["ln_ppl"],
                columns["nll_cell"],
                columns["top1"],
                strict=True,
            )
        ]
        return Baseline(
            schema=SCHEMA,
            pair=cell.pair,
            summary=Summary(
                kl_mean=_significant(mean["kl"]),
                ln_ppl=round(mean["ln_ppl"], 7),
                ppl=round(float(np.exp(mean["nll_cell"])), 4),
                top1=round(mean["top1"], 6),
            ),
            floor=_significant(floor),
            conditions=self._conditions,
            chunks=tuple(rows),
        )

    def compare(self, cell: Cell, floor: float) -> BaselineRecord:
        """A measured cell beside its baseline, as the file was when first asked."""
        if cell.pair not in self._records:
            self._records[cell.pair] = self._compare(cell, floor)
        return self._records[cell.pair]

    def accepted(self, pair: str) -> None:
        """Take note that the figures of this run were written."""
        path = str(self.path(pair))
        self._records[pair] = BaselineRecord(
            verdict="accepted", path=path, text=f"accepted in this run: {path}"
        )

    def proposal(self, pair: str) -> Path:
        """Where a better baseline of a pair is proposed: beside the folder of all baselines."""
        own = self.path(pair).relative_to(self._root)
        return self._root.with_name(f"{self._root.name}-proposed") / own

    def proposed(self, pair: str, before: BaselineRecord) -> None:
        """Take note that better figures of this run were proposed."""
        text = f"{before.text}; proposed as the new baseline: {self.proposal(pair)}"
        self._records[pair] = msgspec.structs.replace(before, verdict="proposed", text=text)

    def record(self, pairs: Iterable[Pair], *, whole: bool) -> BaselinesRecord:
        """Where they lie, and which are of no cell.

        Args:
            pairs: cells of the run.
            whole: whether these are the whole matrix: a part of it makes no orphans.
        """
        known = {self.path(str(pair)).name for pair in pairs}
        files = sorted(path.name for path in self.folder.glob(f"*{SUFFIX}")) if whole else []
        orphans = tuple(name for name in files if name not in known)
        return BaselinesRecord(folder=str(self.folder), orphans=orphans)

    def _compare(self, cell: Cell, floor: float) -> BaselineRecord:
        path = self.path(cell.pair)
        try:
            before = read(path)
        except BaselineError as error:
            return BaselineRecord(verdict="damaged", path=str(path), text=str(error))
        if before is None:
            return BaselineRecord(
                verdict="none", path=str(path), text=f"no baseline was accepted yet ({path})"
            )
        after = self.of(cell, floor)
        found = judge(before, after)
        if found is None:
            what = strangers(before.conditions, after.conditions) or ["order of the chunks"]
            return BaselineRecord(
                verdict="other",
                path=str(path),
                text=f"{path} is of another measurement (another {', another '.join(what)})",
            )
        apart = differences(before.conditions, after.conditions)
        return BaselineRecord(
            verdict=found.verdict,
            path=str(path),
            text=sentence(found, apart),
            drift=found,
            differences=apart,
        )


def hardware_class(library: Library, machine: str, gpu_layers: int) -> str:
    """The folder of machines whose figures agree but for rounding.

    GPUs by their descriptions and number (their kernels are their own, and a model that is split
    is summed up otherwise); a CPU by its architecture only: what another
    one rounds differently is the tolerance's business (:data:`SPREAD`).

    Args:
        machine: ``platform.machine()``.
    """
    if library.gpus_in_use(gpu_layers):
        return slug(library.chip)
    return f"cpu-{ARCHITECTURES.get(machine, machine)}"


def slug(text: str) -> str:
    """A name as part of a path: letters, digits, dots, underscores and single dashes.

    >>> slug("Qwen 3.6-35B (A3B)"), slug("../..")
    ('qwen-3.6-35b-a3b', 'unnamed')
    """
    return re.sub(r"[^\w.]+", "-", text.lower(), flags=re.ASCII).strip("-.") or "unnamed"


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
