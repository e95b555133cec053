"""What a whole run says of faults in the cache, in the logits and in the weights. ``-s``: a table.

None of them is in a kernel: rows of the cache are changed between two decodes, logits after them,
weights before. Right is what says where it shows (rows of that side, the logits) and blames no
kernel that exact arithmetic sees at work; wrong is any such name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from faults import catalogue, weights
from faults.catalogue import Fault
from pytest_kvquant.checks.located import locate
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

CHUNKS = 4
SIDES = {
    "k_scale": "K", "v_scale": "V", "swapped": "KV", "block_off_by_one": "V",
    "last_block_dropped": "V", "half_of_v_zeroed": "V", "rotation_missing": "V",
    "head_sign_flipped": "V", "heads_exchanged": "KV", "layer_zeroed": "KV", "coarse": "KV",
    "wrong_position": "K", "stale_rows": "KV", "first_tokens_lost": "KV", "clipped": "K",
    "noisy": "KV", "drift": "KV", "later_sequences": "V",
}  # fmt: skip
"""Which rows a fault of the cache changes."""

PLANTED = [
    (fault, dose)
    for fault in (*catalogue.CACHE, *catalogue.LOGITS, catalogue.TAIL, *catalogue.WEIGHTS)
    for dose in fault.doses[-2:]
    if fault.name != "one_nan"  # a verdict of its own: there is nothing to diagnose
]
Word = Literal["right", "wrong", "unexplained"]


class Told(NamedTuple):
    """A fault, and what was said of it."""

    fault: Fault
    dose: float
    cell: Cell

    @property
    def fails(self) -> bool:
        """Whether there is anything to explain."""
        return self.cell.verdict != "pass"

    @property
    def sentence(self) -> str:
        return self.cell.diagnosis.sentence if self.cell.diagnosis else ""

    @property
    def word(self) -> Word:
        if self._blamed():
            return "wrong"
        seen = self.sentence
        sides = SIDES.get(self.fault.name, "")
        if sides and any(f"{side} rows" in seen for side in "KV" if side not in sides):
            return "wrong"
        if self.fault.seam == "logits":
            return "right"
        where = ("rows of layer", "the logits do not fit", "as healthy ones")
        shown = any(words in seen for words in where)
        return "right" if shown else "unexplained"

    def _blamed(self) -> bool:
        """Whether a kernel is named, or an operation on the cache."""
        if (found := locate(self.cell)) is not None:
            return found.operation != "ladder"  # which names none: a batch size, outside attention
        return bool(self.cell.diagnosis and self.cell.diagnosis.suspects)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Told]]:
    folder = tmp_path_factory.mktemp("diagnoses")
    found = [Told(fault, dose, run(fault, dose, folder)) for fault, dose in PLANTED]
    yield found
    print("\n" + table(found))


def run(fault: Fault, dose: float, folder: Path) -> Cell:
    """The cell as a run of ``pr`` measures it, a fault in it."""
    plan = {"name": fault.name, "dose": dose, "heads": weights.kv_heads(EMBEDDED_MODEL)}
    if fault.seam == "weights":
        plan["weights"] = str(folder / f"{fault.name}-{dose:g}.gguf")
        weights.plant(EMBEDDED_MODEL, Path(plan["weights"]), fault.name, dose)
    hook = {HOOK: str(Path(__file__).parent / "hook.py"), "KVQUANT_FAULT": json.dumps(plan)}
    settings = Settings(
        pairs=(fault.pair,), chunks=CHUNKS, store=folder / "store", environment=hook, recall=0,
        zoo="off", trajectory=0, fresh=True,
    )  # fmt: skip
    session = Session(settings, dict(os.environ), Listener())
    try:
        return session.measure(Pair.parse(fault.pair))
    finally:
        session.close()


def test_no_kernel_is_blamed_for_what_it_did_not_do(told: list[Told]) -> None:
    failing = [one for one in told if one.fails]
    wrong = [f"{one.fault.name} {one.dose:g}: {one.sentence}" for one in failing
             if one.word == "wrong"]  # fmt: skip
    assert not wrong, "\n".join(wrong)
    assert len(failing) >= 0.6 * len(told)


def test_nine_of_ten_are_right(told: list[Told]) -> None:
    failing = [one for one in told if one.fails]
    assert sum(one.word == "right" for one in failing) >= 0.9 * len(failing)


def table(told: list[Told]) -> str:
    """A markdown table by kind, then what was not named right."""
    lines = ["| planted in | faults and doses | fail | right | wrong | unexplained |",
             "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for seam in ("cache", "logits", "weights"):
        rows = [one for one in told if one.fault.seam == seam]
        failing = [one for one in rows if one.fails]
        counts = [sum(one.word == word for one in failing)
                  for word in ("right", "wrong", "unexplained")]  # fmt: skip
        lines.append(f"| {seam} | {len(rows)} | {len(failing)} | "
                     f"{' | '.join(map(str, counts))} |")  # fmt: skip
    lines += [
        f"- {one.word if one.fails else 'passes'}: {one.fault.name} {one.dose:g}: "
        f"{one.sentence[:200]}"
        for one in told
        if one.word != "right" or not one.fails
    ]
    return "\n".join(lines)
