"""Run a matrix inside a test, without pytest around it, with faults planted in its workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

QUICK = {"ctx": 128, "chunks": 4, "probe": "off", "coverage": "off", "disturbed": "ignore"}
"""Enough to see a gross fault on the embedded model; the probe's own tests have it on."""


def start(tmp_path: Path, *, hook: str = "", shell: dict[str, str] | None = None, **settings: Any):
    """A session with its store in ``tmp_path``; ``hook`` is Python that every worker runs."""
    environment = {}
    if hook:
        path = tmp_path / "hook.py"
        path.write_text(PREAMBLE + hook, encoding="utf-8")
        environment[HOOK] = str(path)
    chosen = Settings(
        **{**QUICK, "store": tmp_path / "store", "environment": environment, **settings}
    )
    return Session(chosen, {**os.environ, **(shell or {})}, Listener())


def run(tmp_path: Path, pairs: str, **options: Any) -> dict[str, Cell]:
    """Cells by pair, judged in the light of the whole matrix."""
    return cells_of(measure(tmp_path, pairs, **options))


def measure(tmp_path: Path, pairs: str, **options: Any) -> Result:
    """The whole result of a few pairs."""
    session = start(tmp_path, pairs=tuple(pairs.split()), **options)
    try:
        for pair in session.pairs:
            session.measure(pair)
        return session.result()
    finally:
        session.close()


def cells_of(result: Result) -> dict[str, Cell]:
    """Cells by pair."""
    return {cell.pair: cell for cell in result.cells}


PREAMBLE = """\
import numpy as np
from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.context import Context

_open, _decode = Context.__init__, Context.decode


def plant(change_types=None, change_logits=None):
    '''Give the cell (never f16/f16) other types, or other logits.'''

    def opened(self, model, *, type_k, type_v, **shape):
        self.planted = (type_k, type_v) != ("f16", "f16")
        if self.planted and change_types is not None:
            type_k, type_v = change_types(type_k, type_v)
        _open(self, model, type_k=type_k, type_v=type_v, **shape)

    def decoded(self, tokens, positions, sequences, outputs):
        logits = _decode(self, tokens, positions, sequences, outputs)
        if self.planted and change_logits is not None:
            logits = change_logits(logits.copy(), tokens, positions, sequences)
        return logits

    Context.__init__, Context.decode = opened, decoded


"""
"""What a hook has at hand."""
