"""One build of ggml's CPU kernels with every mutant in it, switched by ``KVQUANT_MUTANT=N``.

The sources are those of the installed llama-cpp-python, as pip downloads them, or of a tree that
``KVQUANT_GGML_SOURCE`` names. Only ``ggml-cpu`` is taken from the build; beside it lie the other
libraries of the installed release.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from metal.build import ROOT, CannotBuild, fetch, library_folder

from mutants.catalogue import ALL, X86, Edit
from pytest_kvquant.engine.child.abi import source_tree

SWITCH = "KVQUANT_MUTANT"

PRELUDE = f"""
#include <stdlib.h>
static int kvquant_mutant(void) {{
    static int chosen = -1;
    if (chosen < 0) {{
        const char * text = getenv("{SWITCH}");
        chosen = text ? atoi(text) : 0;
    }}
    return chosen;
}}
"""

PROJECT = """cmake_minimum_required(VERSION 3.14)
project(mutants C CXX)
add_subdirectory(ggml)
"""


def usable() -> tuple[Edit, ...]:
    """The edits of kernels that this processor runs."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return tuple(one for one in ALL if x86 or one.file != X86)


def number_of(one: Edit) -> int:
    """Its number, for the switch; 0 is no mutant."""
    return ALL.index(one) + 1


def edited(text: str, edits: Mapping[int, Edit]) -> str:
    """A source file with its mutants.

    Raises:
        LookupError: a function or an expression is not there: the sources are of another release.
    """
    for number, one in edits.items():
        start = text.find(one.function)
        at = text.find(one.before, start)
        if start < 0 or at < 0:
            raise LookupError(f"{one.file} has no {one.before!r} in {one.function!r}")
        after = one.after.replace("{is}", f"(kvquant_mutant() == {number})")
        text = text[:at] + after + text[at + len(one.before) :]
    start = text.index("#include")
    return text[:start] + PRELUDE.lstrip() + text[start:]


def source(shell: Mapping[str, str] = os.environ) -> Path:
    """The ``ggml`` folder, downloaded if none is named.

    Raises:
        CannotBuild: the named tree has none.
    """
    named = shell.get("KVQUANT_GGML_SOURCE")
    if not named:
        return fetch(whole=True) / "ggml"
    for folder in (Path(named), Path(named) / "ggml"):
        if (folder / "src" / "ggml-cpu" / "ops.cpp").is_file():
            return folder.resolve()
    raise CannotBuild(f"KVQUANT_GGML_SOURCE={named} has no src/ggml-cpu/ops.cpp")


def mutate(ggml: Path, target: Path) -> None:
    """Copy the sources and edit them."""
    shutil.copytree(ggml, target)
    by_file: dict[str, dict[int, Edit]] = {}
    for one in usable():
        by_file.setdefault(one.file, {})[number_of(one)] = one
    for file, edits in by_file.items():
        path = target / "src" / "ggml-cpu" / file
        path.write_text(edited(path.read_text(encoding="utf-8"), edits), encoding="utf-8")


def build(folder: Path, *, jobs: int = 2) -> Path:
    """The folder of a library with all mutants, built if it is not there.

    Raises:
        CannotBuild: there is no compiler, or no source.
    """
    library = folder / "lib"
    if library.is_dir():
        return library
    if shutil.which("cmake") is None:
        raise CannotBuild("there is no cmake")
    with tempfile.TemporaryDirectory() as scratch:
        tree, made = Path(scratch), Path(scratch) / "build"
        mutate(source(), tree / "ggml")
        # not on its own: a source distribution leaves out what only that needs
        (tree / "CMakeLists.txt").write_text(PROJECT, encoding="utf-8")
        # the path that the other libraries say they come from: they count as one build
        as_theirs = f"-ffile-prefix-map={tree}={_tree_of(library_folder(os.environ))}"
        for command in (
            ("cmake", f"-DCMAKE_C_FLAGS={as_theirs}", f"-DCMAKE_CXX_FLAGS={as_theirs}",
             "-S", tree, "-B", made, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
             "-DBUILD_SHARED_LIBS=ON", "-DGGML_LLAMAFILE=ON", "-DGGML_BUILD_TESTS=OFF",
             "-DGGML_BUILD_EXAMPLES=OFF"),
            ("cmake", "--build", made, "--target", "ggml-cpu", "-j", str(jobs)),
        ):  # fmt: skip
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                                  check=False)  # fmt: skip
            if done.returncode:
                raise CannotBuild(f"{command[0]} {command[1]} fails:\n{done.stderr[-3000:]}")
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(library_folder(os.environ), part)
        suffix = "dylib" if sys.platform == "darwin" else "so"
        (built,) = {one.resolve() for one in made.rglob(f"libggml-cpu*.{suffix}")}
        for old in part.glob("libggml-cpu*"):
            shutil.copyfile(built, old)
    part.rename(library)
    return library


def _tree_of(libraries: Path) -> str:
    """The source tree that a library names in its own messages."""
    found = (source_tree(one) for one in sorted(libraries.glob("libggml-base*")))
    return next((tree for tree in found if tree), "")


def place() -> Path:
    """Where the build is kept."""
    return ROOT / "build" / "mutants"
