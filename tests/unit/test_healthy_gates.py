"""The kernel's gates: a cell beside its emulated healthy cell."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.checks.answers import answers
from pytest_kvquant.checks.healthy import (
    judge_decode,
    judge_kernel,
    off_by_little,
    shift_limits,
    without_emulation,
)
from pytest_kvquant.checks.judging import owned_gates
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality.healthy import packed, unpacked
from pytest_kvquant.results.cell import Check

RULES = Rules()


def tokens(kl: np.ndarray, seed: int = 0) -> TokenFigures:
    random = np.random.default_rng(seed)
    n = len(kl)
    nll = random.normal(3, 1, n)
    same = random.random(n) > 0.05
    return TokenFigures(
        nll_reference=nll,
        nll_cell=nll + random.normal(0, np.sqrt(2 * kl)),
        kl=kl,
        delta_p=np.zeros(n),
        margin=np.ones(n),
        top_reference=np.zeros(n, np.int32),
        top_cell=(~same).astype(np.int32),
        digest=np.arange(n, dtype=np.uint64) << np.uint64(40),
    )


def evidence(times: float, chunks: int = 32, scored: int = 256, shift: float = 0) -> Evidence:
    """Tokens whose KL is log-normal; the same tokens whatever they are multiplied by."""
    found = Evidence(chunks, scored, tail_over=0.1, tie_band=0.1)
    for chunk in range(chunks):
        random = np.random.default_rng(chunk)
        kl = times * np.exp(random.normal(-6, 1, scored))
        made = tokens(kl, chunk)
        found.put(chunk, 0, made._replace(nll_cell=made.nll_cell + shift))
    return found


def verdicts(times: float, shift: float = 0) -> dict[str, str]:
    gates = judge_kernel(evidence(times, shift=shift), evidence(1), RULES, 1e-7)
    return {gate.name: gate.verdict for gate in gates}


def test_a_healthy_cell_passes_every_gate() -> None:
    assert set(verdicts(1.02).values()) == {"pass"}


def test_twice_the_cost_fails() -> None:
    found = verdicts(2.0)

    assert found["kl_ratio"] == found["kl_tail_ratio"] == "fail"
    assert found["top1_flips_ratio"] == "pass"


def test_chance_that_moves_all_chunks_alike_is_allowed_for() -> None:
    """Seen on Gemma 3 270M, q5_1/q5_1: 1.23 times one emulation, and emulations that are as likely
    cost 0.97 to 1.27 of each other, in every chunk."""
    cell, one = evidence(1.23), evidence(1)
    alone = judge_kernel(cell, one, RULES, 0)
    assert alone[0].verdict == "fail"
    assert off_by_little(alone)
    gate = judge_kernel(cell, one, RULES, 0, [evidence(x) for x in (1.27, 0.97, 1.12)])[0]
    assert gate.verdict == "pass"
    assert gate.figure == pytest.approx(1.23 / np.mean([1, 1.27, 0.97, 1.12]), rel=0.01)


@pytest.mark.parametrize(
    ("cost", "others"), [(1.25, (1.01, 0.99, 1.0)), (1.9, (1.27, 0.97, 1.12)), (0.7, (1.1, 0.9, 1))]
)
def test_a_fault_stays_one_beside_further_emulations(
    cost: float, others: tuple[float, ...]
) -> None:
    draws = [evidence(x) for x in others]
    assert judge_kernel(evidence(cost), evidence(1), RULES, 0, draws)[0].verdict == "fail"


def test_no_further_emulation_is_asked_for_where_it_cannot_matter() -> None:
    for cost in (1.02, 2.0, 0.5):
        assert not off_by_little(judge_kernel(evidence(cost), evidence(1), RULES, 0))
    assert not off_by_little(())


def test_too_small_a_cost_fails_too() -> None:
    assert verdicts(0.5)["kl_ratio"] == "fail"


def test_a_shifted_likelihood_fails_alone() -> None:
    found = verdicts(1.0, shift=0.05)

    assert found["ln_ppl_shift"] == "fail"
    assert found["kl_ratio"] == "pass"


def test_the_limit_of_the_shift_is_that_of_the_chunks_at_hand() -> None:
    """Chunks that come later do not take back what a look has said."""
    kl = np.array([0.02, 0.04, 0.06, 0.0])
    limits = shift_limits(kl, 0.0)

    assert limits == pytest.approx(0.1 * np.sqrt(2 * np.array([0.02, 0.03, 0.04, 0.03])))
    assert shift_limits(kl[:2], 0.0) == pytest.approx(limits[:2])
    assert shift_limits(kl, 0.5) == pytest.approx(0.1)


def test_noise_of_the_machine_is_no_fault() -> None:
    measured, healthy = evidence(1.3), evidence(1)
    quiet = judge_kernel(measured, healthy, RULES, 0.0)[0]
    noisy = judge_kernel(measured, healthy, RULES, 0.01)[0]

    assert (quiet.verdict, noisy.verdict) == ("fail", "pass")


def test_only_chunks_that_both_have_are_judged() -> None:
    gate = judge_kernel(evidence(1, 32), evidence(1, 8), RULES, 0)[0]

    assert gate.chunks == 8
    assert gate.measured == gate.healthy


def test_the_decode_path_is_one_look_where_there_are_no_further_chunks() -> None:
    assert judge_decode(evidence(1, 8, 16), evidence(1, 8, 16), 0, (8,)).verdict == "pass"
    assert judge_decode(evidence(4, 8, 16), evidence(1, 8, 16), 0, (8,)).verdict == "fail"


def test_two_looks_at_the_decode_path_share_its_error() -> None:
    first, second = (
        judge_decode(evidence(1, count, 16), evidence(1, count, 16), 0, (8, 32))
        for count in (8, 32)
    )
    alone = judge_decode(evidence(1, 8, 16), evidence(1, 8, 16), 0, (8,))
    assert first.level == second.level == alone.level / 2
    assert (first.decided_at, second.chunks) == (8, 32)


def test_without_an_emulation_a_gate_is_open_and_says_why() -> None:
    gate = without_emulation("kl_ratio", np.ones(4), RULES, "V is transposed")

    assert gate.verdict == "inconclusive"
    assert "V is transposed" in gate.rule


def test_fitness_without_budgets_is_not_judged() -> None:
    kernel = judge_kernel(evidence(1), evidence(1), RULES, 0)
    told = answers(kernel, [Check(name="types", verdict="pass", text="")])

    assert told == ("pass", "not judged")
    assert answers(kernel, [Check(name="shapes", verdict="fail", text="")]).kernel == "fail"
    assert answers((), []).kernel == "not judged"


def test_owned_gates() -> None:
    assert owned_gates([]) == frozenset()
    assert owned_gates(["kl_mean"]) == {"kl_mean", "decode_kl_mean"}
    assert owned_gates(["decode_kl_mean"]) == {"decode_kl_mean"}
    assert owned_gates(["kl_tail_over"]) == {"kl_tail"}


def test_figures_are_kept_to_the_last_bit() -> None:
    made = tokens(np.exp(np.random.default_rng(3).normal(-6, 2, 100)))
    for ours, theirs in zip(unpacked(packed(made)), made, strict=True):
        assert np.array_equal(ours, theirs)
