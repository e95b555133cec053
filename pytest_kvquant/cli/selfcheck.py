"""``kvquant selfcheck``: what the authors could not run, run by whoever has the machine.

The doctor, the embedded matrix with its census of operations, and two planted faults that have to
be found; all of it in one file to send back, without names or paths of its sender.
"""

from __future__ import annotations

import argparse
import getpass
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant import __version__
from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.machine.files import replace
from pytest_kvquant.numerics.plain import Json

WRONG = """\
from pytest_kvquant.engine.child.context import Context

_made, _decoded = Context.__init__, Context.decode


def made(self, model, *, type_k, type_v, **more):
    self.planted = (type_k, type_v) != ("f16", "f16")
    _made(self, model, type_k=type_k, type_v=type_v, **more)


def decoded(self, *arguments):
    logits = _decoded(self, *arguments)
    return logits * 0.8 if self.planted and len(logits) > 1 else logits


Context.__init__, Context.decode = made, decoded
"""
"""Logits of every pair but f16/f16 are flattened."""

CRASH = """\
import os, signal
from pytest_kvquant.engine.child.context import Context

_made = Context.__init__


def made(self, model, *, type_k, type_v, **more):
    if (type_k, type_v) == ("q8_0", "q8_0"):
        os.kill(os.getpid(), signal.SIGKILL)
    _made(self, model, type_k=type_k, type_v=type_v, **more)


Context.__init__ = made
"""
"""The worker of q8_0/q8_0 dies."""

FAULTS = {"wrong logits": (WRONG, "fail"), "a killed worker": (CRASH, "crashed")}
"""By name: the planted fault, and the verdict that q8_0/q8_0 must get."""

QUICK = ("--kv-profile", "quick", "--kv-ctx", "256", "--kv-speed", "off")


class SelfCheck(NamedTuple):
    """Everything, without private words."""

    ok: bool
    summary: list[str]
    data: Json
    """What is sent back; it holds the other two."""


class Step(NamedTuple):
    """One step."""

    code: int
    text: str
    result: Json = None
    """Of ``--kv-json``, or the doctor's; ``None`` where there is none."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "selfcheck", help="run what the authors could not, and write one file to send back"
    )
    parser.add_argument("--out", type=Path, default=Path("kvquant-selfcheck.json"), metavar="FILE")
    parser.add_argument("--kv-lib", metavar="DIR", help="as for pytest --kv-matrix")
    parser.add_argument("--kv-python", metavar="PATH", help="likewise")
    parser.set_defaults(run=_run, measures=True)


def _run(parsed: argparse.Namespace) -> int:
    given = [("--kv-lib", parsed.kv_lib), ("--kv-python", parsed.kv_python)]
    options = [word for flag, value in given if value for word in (flag, value)]
    found = check(options)
    replace(parsed.out, (json.dumps(found.data, indent=2) + "\n").encode())
    for line in found.summary:
        print(line)
    print(f"written: {parsed.out} (no names or paths of yours; please send it back)")
    return 0 if found.ok else 1


def check(options: Sequence[str] = ()) -> SelfCheck:
    """Everything, as plain data without private words.

    Args:
        options: of the run, for each step.
    """
    with tempfile.TemporaryDirectory(prefix="kvquant-selfcheck-") as scratch:
        folder = Path(scratch)
        doctor = _doctor(options)
        matrix = _matrix(folder / "matrix", options, "--kv-speed", "on")
        faults = {
            name: _matrix(folder / name.replace(" ", "-"), options, *QUICK, "--kv-pairs",
                          "q8_0/q8_0", hook=hook)
            for name, (hook, _) in FAULTS.items()
        }  # fmt: skip
    seen = {name: _verdict(ran.result, "q8_0/q8_0") for name, ran in faults.items()}
    missed = [name for name, (_, wanted) in FAULTS.items() if seen[name] != wanted]
    summary = [
        f"doctor: {'a run would start' if doctor.code == 0 else 'a run would not start'}",
        f"embedded matrix: exit code {matrix.code}, {_counted(matrix.result)}",
        *(f"planted fault, {name}: {verdict}" for name, verdict in seen.items()),
    ]
    ok = doctor.code == 0 and matrix.code == 0 and not missed
    found: dict[str, Json] = {
        "plugin": __version__,
        "system": [platform.system(), platform.release(), platform.machine()],
        "python": platform.python_version(),
        "ok": ok,
        "missed": missed,
        "summary": summary,
        "steps": {
            "doctor": doctor._asdict(),
            "matrix": matrix._asdict(),
            **{f"fault: {name}": ran._asdict() for name, ran in faults.items()},
        },
    }
    words = private_words(scratch)
    return SelfCheck(ok, [str(without_private(line, words)) for line in summary],
                 without_private(found, words))  # fmt: skip


def private_words(*more: str) -> dict[str, str]:
    """What must not leave the machine, and what stands for it; longer ones first."""
    words = {
        str(Path.home()): "~", str(Path.cwd()): "<here>", sys.prefix: "<environment>",
        tempfile.gettempdir(): "<temporary>", platform.node(): "<host>",
        getpass.getuser(): "<user>",
        **{word: "<scratch>" for word in more},
    }  # fmt: skip
    kept = {word: stands for word, stands in words.items() if len(word) > 2}
    return dict(sorted(kept.items(), key=lambda one: -len(one[0])))


FOLDER = re.compile(
    r"(?<![\w~>.:/%-])/(?!(?:usr|lib|lib64|proc|sys|dev|bin|System|Library|opt/homebrew)/)"
    r"(?:[\w.@+~-]+(?: [\w.@+~-]+)*/)+"
)
"""The folders of an absolute path that belongs to no system: they may name anybody."""


def without_private(data: Json, words: Mapping[str, str]) -> Json:
    """Plain data with every private word replaced, in keys too; of paths only the end is left.

    >>> without_private({"/home/ada/x": ["ada ran it", 3]}, {"/home/ada": "~", "ada": "<user>"})
    {'~/x': ['<user> ran it', 3]}
    >>> without_private("in /Volumes/Secret Work/b/libllama.so, /usr/lib/libc.so", {})
    'in <folder>/libllama.so, /usr/lib/libc.so'
    """
    if isinstance(data, str):
        for word, stands in words.items():
            data = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", stands, data)
        return FOLDER.sub("<folder>/", data)
    if isinstance(data, Mapping):
        return {
            str(without_private(key, words)): without_private(value, words)
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [without_private(one, words) for one in data]
    return data


def _doctor(options: Sequence[str]) -> Step:
    words = [sys.executable, "-m", "pytest_kvquant", "doctor", "--json", *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        return Step(done.returncode, done.stderr, json.loads(done.stdout))
    except json.JSONDecodeError:
        return Step(done.returncode, done.stdout + done.stderr)


def _matrix(folder: Path, options: Sequence[str], *more: str, hook: str = "") -> Step:
    folder.mkdir()
    lines = []
    if hook:
        (folder / "hook.py").write_text(hook, encoding="utf-8")
        lines = ["[environment]", f"KVQUANT_WORKER_HOOK = '{folder / 'hook.py'}'"]
    config, result = folder / "kvquant.toml", folder / "kv.json"
    config.write_text("\n".join(lines), encoding="utf-8")
    words = [
        *(sys.executable, "-m", "pytest", "--kv-matrix", "--kv-config", str(config)),
        *("--kv-json", str(result), "--kv-store", str(folder / "store")),
        *("--kv-baselines", str(folder / "baselines"), "-p", "no:cacheprovider", "-q"),
        *options,
        *more,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
    text = done.stdout[-20_000:] + done.stderr[-5_000:]
    read = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
    return Step(done.returncode, text, read)


def _verdicts(result: Json) -> list[tuple[str, str]]:
    """Pair and verdict of each cell."""
    cells = result.get("cells") if isinstance(result, dict) else None
    listed = cells if isinstance(cells, list) else []
    return [(str(cell["pair"]), str(cell["verdict"])) for cell in listed]


def _verdict(result: Json, pair: str) -> str:
    return next((verdict for name, verdict in _verdicts(result) if name == pair), "no result")


def _counted(result: Json) -> str:
    verdicts = [verdict for _, verdict in _verdicts(result)]
    words = [f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts)]
    return ", ".join(words) or "no result"
