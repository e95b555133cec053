"""What a worker loads, and in which order: asked of real ones, by a hook in their interpreters."""

from __future__ import annotations

from pathlib import Path

from support import run

TOLD = """\
import ctypes, os, sys

NAMES = {"numpy", "scipy", "numba", "pytest", "_pytest", "pluggy"}
loads = ctypes.CDLL.__init__


def tell(what):
    with open(os.environ["KVQUANT_TOLD"], "a") as file:
        file.write(f"{os.getpid()} {what}\\n")


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in NAMES:
            tell(name)


def load(self, name, *args, **words):
    if "libllama" in str(name):
        tell("libllama")
    loads(self, name, *args, **words)


sys.meta_path.insert(0, Finder())
ctypes.CDLL.__init__ = load
"""


def test_a_worker_loads_the_library_before_numpy_and_neither_scipy_numba_nor_pytest(
    tmp_path: Path,
) -> None:
    """A llama.cpp that is linked statically against libstdc++ dies where NumPy was there first."""
    hooks, told = tmp_path / "hooks", tmp_path / "told"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(TOLD, encoding="utf-8")
    cells = run.run(
        tmp_path, "q8_0/q8_0", chunks=1, decode=8, recall=0, speed="off", probe="always",
        environment={"PYTHONPATH": str(hooks), "KVQUANT_TOLD": str(told)},
    )  # fmt: skip
    assert cells["q8_0/q8_0"].quality is not None
    workers: dict[str, list[str]] = {}
    for line in told.read_text(encoding="utf-8").splitlines():
        number, what = line.split()
        workers.setdefault(number, []).append(what)
    assert workers
    for loaded in workers.values():
        assert loaded[0] == "libllama", loaded
        assert {*loaded} == {"libllama", "numpy"}
