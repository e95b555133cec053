"""What became of a scenario: its record, from what was seen or from how it ended.

``unsupported`` is what the library says by the functions that are there to say it
(``llama_memory_can_shift``, ``llama_memory_seq_rm``), or by making no context of that shape, and
says of f16, too. What f16 can and a pair cannot fails, and so does what was begun and not done: a
state that does not come back, a refusal in the middle of a decode.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pytest_kvquant.engine.messages.cell import Step
from pytest_kvquant.engine.messages.kernels import ScenarioPlayed
from pytest_kvquant.errors import CellError, CellUnsupported
from pytest_kvquant.quality.ladder import NO_TAIL
from pytest_kvquant.quality.scenarios.registry import Scenario
from pytest_kvquant.quality.scenarios.tape import in_words
from pytest_kvquant.results.kernels import PLACEMENT, Examination, ScenarioRecord


class ScenarioLimits(NamedTuple):
    """Nats that logits of a scenario may be apart."""

    own: float
    """Those that should be equal."""
    reference: float
    """Those of f16 in the same steps."""


class OfScenario(NamedTuple):
    """A scenario, and what is known beside what was seen of it."""

    scenario: Scenario
    steps: Sequence[Step]
    last: int
    """Number of the last step that was begun; -1: none was."""
    found: Examination
    """Of the same pair, before."""
    control: Examination | None
    """Of f16; ``None`` where that is the pair."""

    def judged(self, seen: ScenarioPlayed, limits: ScenarioLimits) -> ScenarioRecord:
        """The record of a scenario that was played, or that the library refused in words."""
        if seen.unsupported:
            return self._said_no(f"the library says that it cannot: {seen.unsupported}")
        own = max(seen.own, default=None)
        reference = max(seen.reference.values(), default=None)
        wrong = sum(one.failed for one in seen.corners if one.operation != PLACEMENT)
        complaints = []
        if seen.failed:
            complaints.append(f"{self.scenario.title}: {self._at()}. {seen.failed}")
        if own is not None and not own <= limits.own:
            complaints.append(
                f"what should be equal differs by KL {own:.2g}, allowed {limits.own:.2g}"
            )
        if reference is not None and not reference <= limits.reference:
            complaints.append(
                f"KL against f16 in the same steps is {reference:.2g}, "
                f"allowed {limits.reference:.2g}"
            )
        explained = self._explained(seen) and not complaints
        if wrong:
            first = next(one for one in seen.failures if one.operation != PLACEMENT)
            complaints.append(f"{wrong} nodes are wrong, first: {first.text}")
        known = self.scenario.known
        return self._record(
            "fail" if complaints else "pass",
            "; ".join(complaints) or self.scenario.title,
            reference=reference,
            own=own,
            limit=limits.own if own is not None else limits.reference,
            wrong_nodes=wrong,
            known=known.why if known and complaints and explained else "",
        )

    def left(self, why: str) -> ScenarioRecord:
        """The record of a scenario that is not played on this model."""
        return self._record("unsupported", f"{self.scenario.title}: {why}")

    def ended(self, error: CellError) -> ScenarioRecord:
        """The record of a scenario that killed its worker, or that the library did not begin."""
        text = f"{self.scenario.title}: {error.verdict} {self._at()}. {error}"
        if not isinstance(error, CellUnsupported):
            return self._record(error.verdict, text)
        at = self.steps[self.last][0] if self.last >= 0 else "reopen"
        return self._said_no(text) if at == "reopen" else self._record("fail", text)

    def _said_no(self, text: str) -> ScenarioRecord:
        if self.control is None:
            ladder = NO_TAIL not in self.found.left_out
            if ladder and self.last >= 0 and self.steps[self.last][0] == "seq_rm":
                return self._record("fail", f"{text}; in the ladder it could")
            return self._record("unsupported", text)
        name = self.scenario.name
        asked = {one.name: one.verdict for one in self.control.scenarios}
        if asked.get(name, "unsupported") != "unsupported":
            return self._record("fail", f"{text}; of f16 it does not say so")
        return self._record("unsupported", text)

    def _explained(self, seen: ScenarioPlayed) -> bool:
        """Whether what is known explains every wrong node."""
        known = self.scenario.known
        wrong = {one.operation for one in seen.corners if one.failed} - {PLACEMENT}
        if known is None or wrong != {known.operation}:
            return False
        texts = [one.text for one in seen.failures if one.operation in wrong]
        return all(re.search(known.pattern, text) for text in texts)

    def _at(self) -> str:
        """The step that ended it and those before, in words of the API."""
        words = [in_words(step) for step in self.steps[: self.last + 1]]
        done = [word for word in words[:-1] if not word.startswith("llama_decode")]
        after = f" after {', '.join(done)}" if done else ""
        return f"in {words[-1] if words else 'llama_init_from_model'}{after}"

    def _record(self, verdict: str, text: str, **figures: object) -> ScenarioRecord:
        name, title = self.scenario.name, self.scenario.title
        blank = ScenarioRecord(name=name, title=title, verdict=verdict, text=text)
        return msgspec.structs.replace(blank, **figures)


def without_known(seen: ScenarioPlayed, operation: str) -> ScenarioPlayed:
    """What was seen but for wrong nodes of an operation that is known to be wrong there."""
    return dataclasses.replace(
        seen,
        corners=[one for one in seen.corners if not (one.failed and one.operation == operation)],
        failures=[one for one in seen.failures if one.operation != operation],
    )
