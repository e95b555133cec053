"""No kernel is suspected: said only when everything else is excluded."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pytest_kvquant.checks.excluded import reviewed
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.diagnosis import Diagnosis, Suspect
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.kernels import CornerRecord, Examination

ROUNDING = Diagnosis(verdict="rounding", sentence="No kernel is suspected: so it was once said.")


def gate(name: str, verdict: str = "pass", figure: float = 1.02) -> Gate:
    return Gate(
        name=name, verdict=verdict, figure=figure, low=0.97, high=1.07, budget=1.1, unit="ratio",
        chunks=16, e_value=None, p_value=1.0, alpha=0.01, level=0.0025, decided_at=16,
        census=False, chunks_needed=None, rule="", question="kernel",
    )  # type: ignore[arg-type]  # fmt: skip


QUANTIZER = Check(name="quantizer", verdict="pass", text="")
HEALTHY = Cell(
    pair="q4_0/q4_0",
    verdict="fail",
    gates=(gate("kl_ratio"), gate("decode_kl_ratio")),
    checks=(QUANTIZER, Check(name="ladder", verdict="pass", text="")),
)


def read(cell: Cell, diagnosis: Diagnosis = ROUNDING) -> Diagnosis:
    found = reviewed(diagnosis, cell)
    assert found is not None
    return found


def test_with_everything_excluded_it_is_said_with_figures() -> None:
    found = read(HEALTHY)

    assert found.verdict == "rounding"
    assert found.sentence.startswith("No kernel is suspected")
    assert "1.02 (0.97 to 1.07)" in found.sentence
    assert "quantizer, ladder" in found.sentence


def test_a_ratio_that_is_wrong_or_open_forbids_it() -> None:
    for verdict in ("fail", "inconclusive"):
        wrong = replace(HEALTHY, gates=(gate("kl_ratio", verdict, 1.6), gate("decode_kl_ratio")))
        found = read(wrong)

        assert found.verdict == "not localized"
        assert found.sentence.startswith("Unexplained: mean KL over the healthy cell's")
        assert "1.6 (0.97 to 1.07)" in found.sentence
        assert "No kernel" not in found.sentence


def test_a_path_that_was_not_measured_forbids_it() -> None:
    found = read(replace(HEALTHY, gates=(gate("kl_ratio"),)))

    assert "by the decode path over the healthy cell's was not measured" in found.sentence


def test_a_check_of_a_kernel_that_fails_forbids_it() -> None:
    ladder = Check(name="ladder", verdict="fail", text="4 tokens at 256 differ")
    found = read(replace(HEALTHY, checks=(QUANTIZER, ladder)))

    assert "Unexplained: ladder: 4 tokens at 256 differ" in found.sentence


def test_quantizers_that_nobody_asked_forbid_it() -> None:
    assert "arithmetic" in read(replace(HEALTHY, checks=())).sentence


def test_what_is_not_localized_tells_what_was_excluded() -> None:
    found = read(HEALTHY, Diagnosis(verdict="not localized", sentence="Not localized: why."))

    assert found.verdict == "not localized"
    assert "Excluded: mean KL over the healthy cell's 1.02" in found.sentence


def test_what_exact_arithmetic_found_comes_first() -> None:
    corners = (
        CornerRecord(operation="rope", tokens=1, nodes=2, failed=2, ratio=9, error=0, worst=0),
        CornerRecord(operation="rope", tokens=8, nodes=2, failed=0, ratio=0, error=0, worst=0),
    )
    cell = replace(HEALTHY, kernels=Examination(level="standard", corners=corners))
    for before in (ROUNDING, None):
        found = reviewed(before, cell)
        assert found is not None
        assert (found.verdict, found.sentence) == ("suspect", "decode, 1 query token: rope.")


def test_a_suspect_stays() -> None:
    suspect = Diagnosis(verdict="suspect", sentence="K rows of layer 0 are zero.")

    assert reviewed(suspect, HEALTHY) == suspect
    assert reviewed(None, HEALTHY) is None


def probed(kernel: str, sentence: str) -> Diagnosis:
    suspect = Suspect(
        kernel=kernel, side="V", path="both", layers=(0,), confidence="high", sentence=sentence
    )  # type: ignore[arg-type]  # fmt: skip
    return Diagnosis(verdict="suspect", sentence=sentence, suspects=(suspect,))


@pytest.mark.parametrize(
    ("kernel", "proof", "where"),
    [
        ("quantizer", "cache_writes", "what comes before the write"),
        ("attention", "attention", "what follows it"),
    ],
)
def test_what_exact_arithmetic_found_right_is_not_blamed(
    kernel: str, proof: str, where: str
) -> None:
    """Rows can be wrong though every write is right; what was seen is still said."""
    suspicion = probed(kernel, "V rows of layer 0 are 1.02 times too large: look at set-rows.")
    proven = replace(HEALTHY, checks=(*HEALTHY.checks, Check(name=proof, verdict="pass", text="")))
    found = read(proven, suspicion)

    assert (found.verdict, found.suspects) == ("not localized", ())
    assert found.sentence.startswith("Unexplained: V rows of layer 0 are 1.02 times too large.")
    assert where in found.sentence
    assert "look at" not in found.sentence
    assert read(HEALTHY, suspicion) == suspicion
