"""Which tests a run was to run, and which have ended: whether it is whole.

A run that was interrupted (a signal, ``-x``, a dead process) is not a run of fewer tests: what was
selected is known before the first test, what has ended is counted as it ends.
"""

from __future__ import annotations

from collections.abc import Iterable


class RollCall:
    """Tests by node id, and the pair that each is of."""

    def __init__(self) -> None:
        self._planned: dict[str, str] = {}
        self._ended: set[str] = set()
        self._broken = False
        self.reason = ""
        """What ended the run early, in words; empty where nobody said."""

    def plan(self, test: str, pair: str = "") -> None:
        """A test that was selected; of no pair where ``pair`` is empty."""
        self._planned[test] = pair

    def ended(self, test: str) -> None:
        """A test has run to its end, whatever came of it."""
        self._ended.add(test)

    def broken(self, reason: str) -> None:
        """A process is lost: what it had under way may be lost with it, whoever goes on."""
        self._broken = True
        self.reason = reason

    @property
    def open(self) -> list[str]:
        """Tests that were selected and did not end, in their order."""
        return [test for test in self._planned if test not in self._ended]

    def open_of(self, pair: str) -> list[str]:
        """Those of one pair."""
        return [test for test in self.open if self._planned[test] == pair]

    @property
    def whole(self) -> bool:
        """Whether every selected test ended."""
        return not self.open and not self._broken

    @property
    def pairs(self) -> list[str]:
        """Pairs that selected tests are of, in their order."""
        return list(dict.fromkeys(pair for pair in self._planned.values() if pair))

    @property
    def unfinished(self) -> list[str]:
        """Pairs of which a selected test did not end, in their order."""
        return list(dict.fromkeys(pair for test in self.open if (pair := self._planned[test])))

    def tests(self) -> list[str]:
        """Names of the selected test functions, once each, in their order."""
        return list(dict.fromkeys(map(test_name, self._planned)))


def test_name(node: str) -> str:
    """The function of a node id.

    >>> test_name("suite/test_quality.py::test_kl_tail[f16/q8_0]")
    'test_kl_tail'
    """
    return node.partition("[")[0].rpartition("::")[2]


test_name.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


def pair_of(node: str, pairs: Iterable[str]) -> str:
    """The pair in the brackets of a node id; empty where there is none.

    >>> pair_of("test_speed.py::test_decode_speed[d0-f16/q8_0]", ["f16/q8_0"])
    'f16/q8_0'
    """
    known = set(pairs)
    parameters = node.rpartition("[")[2].rstrip("]").split("-")
    return next((word for word in parameters if word in known), "")
