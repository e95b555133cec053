"""For authors of gates and of forks: try a gate without a model, and a run with a planted fault.

Three things. :func:`subject` makes up a measured cell from figures per chunk, and :func:`decide`
decides a gate or a check on it: no engine, no model. :class:`Project` is a folder with a
configuration and tests, in which ``pytest --kv-matrix`` runs in a process of its own.
:data:`FAULTS` are faults that its workers can be given, on the model that the package brings:
gates have to find them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pytest_kvquant.checks.declaration import ATTRIBUTE, Declaration, Given
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.budgets import Budgets, resolve_budgets
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.file import read
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.result import Result

QUICK = (
    "--kv-ctx=64", "--kv-chunks=4", "--kv-order=sequential", "--kv-speed=off", "--kv-decode=0",
    "--kv-trajectory=0", "--kv-probe=off", "--kv-coverage=off", "--kv-recall=0",
)  # fmt: skip
"""Options under which a pair of the packaged model takes about a second."""


def subject(
    pair: str = "q8_0/q4_0",
    *,
    per_chunk: Mapping[str, Sequence[float]] | None = None,
    checks: Sequence[Check] = (),
    budgets: Budgets | None = None,
) -> Subject:
    """A measured cell that no engine measured.

    Args:
        per_chunk: figures by name, one a chunk: ``kl``, ``ln_ppl``, ``tail``, ``flips``, ``top1``.
        checks: what was found before.
        budgets: default: those of the packaged model.

    >>> subject(per_chunk={"kl": [0.01, 0.02]}).cell.per_chunk["kl"]
    (0.01, 0.02)
    """
    parsed = Pair.parse(pair)
    figures = {name: tuple(map(float, values)) for name, values in (per_chunk or {}).items()}
    cell = Cell(pair=pair, verdict="pass", per_chunk=figures, checks=tuple(checks))
    chosen = budgets or resolve_budgets(parsed, embedded=True, overrides={}, defaults={})
    return Subject(pair=parsed, cell=cell, budgets=chosen, others=(cell,))


def decide(
    function: Callable[..., Any],
    on: Subject,
    *,
    rules: Rules | None = None,
    scored: int = 256,
) -> Gate | Check | None:
    """Decide a decorated gate or check on a made-up cell.

    Args:
        rules: of a gate; default: those of a pull request, for as many chunks as there are.
        scored: tokens per chunk that a gate may count with.

    >>> from pytest_kvquant.checks.kl_mean import kl_mean
    >>> decide(kl_mean, subject(per_chunk={"kl": chunks(5.0)})).verdict
    'fail'
    """
    declared = declaration(function)
    if not declared.is_gate:
        found: Check | None = declared.decide(on)
        return found
    figures = {name: np.asarray(values, np.float64) for name, values in on.cell.per_chunk.items()}
    count = max((len(values) for values in figures.values()), default=1)
    given = Given(on.budgets.batched, rules or Rules(cap=count), scored)
    gate: Gate = declared.decide(figures, given)
    return gate


def declaration(function: object) -> Declaration:
    """What a decorated gate or check declares: its name, its test, its budget, what it needs.

    Raises:
        TypeError: the function carries no declaration.
    """
    found = getattr(function, ATTRIBUTE, None)
    if not isinstance(found, Declaration):
        raise TypeError(f"{function!r} is not decorated as a gate or a check.")
    return found


def chunks(mean: float, count: int = 16, *, spread: float = 0.1, seed: int = 0) -> list[float]:
    """Figures per chunk around a mean, never negative, the same for the same seed.

    >>> len(chunks(0.01)), abs(sum(chunks(0.01, 4000)) / 4000 - 0.01) < 1e-4
    (16, True)
    """
    random = np.random.default_rng(seed)
    noise = random.gamma(1 / spread**2, spread**2, count)
    return [float(mean * one) for one in noise]


FAULTS: dict[str, str] = {
    "noise": "def change_logits(logits, *_):\n"
             "    return logits + np.random.default_rng(0).normal(0, 2.0, logits.shape)\n",
    "nan": "def change_logits(logits, *_):\n    logits[-1:] = np.nan\n    return logits\n",
    "swapped": "def change_logits(logits, *_):\n    return logits[:, ::-1]\n",
    "decode": "def change_logits(logits, tokens, *_):\n"
              "    return logits * 0.5 if len(tokens) == 1 else logits\n",
    "crash": "import os\ndef change_logits(logits, *_):\n    os.abort()\n",
    "substituted": "def change_types(k, v):\n    return 'q8_0', 'q8_0'\n",
    "inactive": "def change_types(k, v):\n    return 'f16', 'f16'\n",
}  # fmt: skip
"""Faults by name: Python that every worker runs, defining ``change_logits(logits, tokens,
positions, sequences)`` or ``change_types(k, v)``. ``f16/f16`` is left alone."""

_PLANT = """

from pytest_kvquant.engine.child.context import Context as _Context

_open, _decode = _Context.__init__, _Context.decode


def _opened(self, model, *, type_k, type_v, **shape):
    self.planted = (type_k, type_v) != ("f16", "f16")
    if self.planted and "change_types" in globals():
        type_k, type_v = change_types(type_k, type_v)
    _open(self, model, type_k=type_k, type_v=type_v, **shape)


def _decoded(self, tokens, positions, sequences, outputs):
    logits = _decode(self, tokens, positions, sequences, outputs)
    if self.planted and "change_logits" in globals():
        logits = change_logits(logits.copy(), tokens, positions, sequences)
    return np.asarray(logits, np.float32)


_Context.__init__, _Context.decode = _opened, _decoded
"""


class Ran(NamedTuple):
    """How a run of a project ended."""

    code: int
    """pytest's exit code."""
    text: str
    """Standard output and error together."""
    result: Result | None
    """What it measured; ``None`` where it did not start."""

    def verdict(self, pair: str) -> str:
        """The verdict of a pair.

        Raises:
            LookupError: the run measured no such pair; the text of the run says why.
        """
        for cell in self.result.cells if self.result is not None else ():
            if cell.pair == pair:
                return cell.verdict
        raise LookupError(f"the run measured no {pair}:\n{self.text}")


class Project:
    """A folder in which ``pytest --kv-matrix`` can run, with files of one's own.

    Args:
        folder: an empty one, as ``tmp_path``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment: dict[str, str] = {}
        self._config = ""

    def config(self, text: str) -> None:
        """The content of ``kvquant.toml``; its ``[environment]`` is made here."""
        self._config = text

    def file(self, name: str, text: str) -> Path:
        """A file of the project: a test, a module."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def plant(self, fault: str) -> None:
        """Give the workers of the runs to come a fault.

        Args:
            fault: a name of :data:`FAULTS`, or Python that defines the same functions.
        """
        code = FAULTS.get(fault, fault)
        path = self.file("planted_fault.py", f"import numpy as np\n\n\n{code}{_PLANT}")
        self._environment[HOOK] = str(path)

    def run(self, *options: str, quick: bool = True, timeout: float = 300) -> Ran:
        """Run ``pytest --kv-matrix`` here.

        Args:
            options: more options and paths.
            quick: begin with :data:`QUICK`; options given here win.
            timeout: seconds.
        """
        lines = "\n".join(f'{name} = "{value}"' for name, value in self._environment.items())
        self.file("kvquant.toml", f"{self._config}\n[environment]\n{lines}\n")
        json = self.folder / "testing-result.json"
        json.unlink(missing_ok=True)
        words = [*(QUICK if quick else ()), f"--kv-json={json}", "--kv-store=store", *options]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kv-matrix", *words],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "COLUMNS": "120"}, check=False, timeout=timeout,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, read(json) if json.exists() else None)
