"""What the check of the quantizers says."""

from __future__ import annotations

from pytest_kvquant.checks.quantizer import check_quantizers
from pytest_kvquant.numerics.known_quantizers import table
from pytest_kvquant.numerics.quantizer_limits import Finding
from pytest_kvquant.results.quantizer import QuantizerRecord

Q8 = next(one for one in table() if one.type == "q8_0")
HEALTHY = QuantizerRecord(type="q8_0", figures=Q8, known=True)


def test_a_healthy_type_tells_its_figures() -> None:
    found = check_quantizers([HEALTHY])

    assert found.verdict == "pass"
    assert found.text == "q8_0: 8.5 bits, 45.5 dB, 5.7 dB under Shannon's bound"


def test_a_broken_rule_fails_in_words() -> None:
    finding = Finding(rule="sign", figure=3, limit=0.1, text="negated values differ by 3 dB")
    broken = QuantizerRecord(type="q4_0", figures=Q8, findings=(finding,))
    found = check_quantizers([HEALTHY, broken])

    assert (found.verdict, found.text) == ("fail", "q4_0: negated values differ by 3 dB")


def test_what_could_not_be_asked_is_open() -> None:
    found = check_quantizers([QuantizerRecord(type="q4_0", problem="the worker died")])

    assert (found.verdict, found.text) == ("inconclusive", "q4_0: the worker died")


def test_an_unknown_type_and_a_better_one_say_so() -> None:
    text = check_quantizers([QuantizerRecord(type="q8_0", figures=Q8, gained=1.2)]).text

    assert "1.2 dB better than accepted, no accepted figures of this type" in text
