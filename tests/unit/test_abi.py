from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kvquant.engine.child import abi

TABLE = abi._table()
LAYOUTS = {tuple(layout["releases"]): layout for layout in TABLE["layouts"]}
C_TYPES = {
    "i": "int",
    "I": "unsigned",
    "L": "unsigned long",
    "f": "float",
    "?": "_Bool",
    "P": "void *",
}
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

Build = Callable[..., ctypes.CDLL]


def fields(releases: tuple[str, ...], struct: str) -> list[tuple[str, str]]:
    return [tuple(entry.split(":")) for entry in LAYOUTS[releases][struct].split()]


def source(releases: tuple[str, ...], **changes: str) -> str:
    """C source of a stand-in: the two functions and all symbols that these releases bind."""
    parts = []
    for struct in abi.STRUCTS:
        declared = "".join(f"{C_TYPES[kind]} {name}; " for name, kind in fields(releases, struct))
        extra = changes.get("extra", "") if struct == "llama_context_params" else ""
        also = changes.get("also", "") if extra else ""
        values = "".join(
            f"p.{name} = {changes.get(name, literal(TABLE['defaults'][struct][name]))}; "
            for name, _ in fields(releases, struct)
        )
        function = struct.replace("_params", "_default_params")
        parts.append(
            f"struct {struct} {{ {declared} {extra} }};\n"
            f"struct {struct} {function}(void) "
            f"{{ struct {struct} p; {values} {also} return p; }}"
        )
    defined = {struct.replace("_params", "_default_params") for struct in abi.STRUCTS}
    symbols = sorted(set(abi.bound_symbols(releases[-1])) - defined)
    parts += [f"void {name}(void) {{}}" for name in symbols if name != changes.get("without")]
    return "\n".join(parts)


def literal(value: Any) -> str:
    return "0" if value is None else str(int(value) if isinstance(value, bool) else value)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def compile_stand_in(releases: tuple[str, ...], **changes: str) -> ctypes.CDLL:
        code, library = tmp_path / "llama.c", tmp_path / "libllama.so"
        code.write_text(source(releases, **changes))
        assert COMPILER is not None
        flags = ["-shared", "-fPIC", "-O1", "-w"]
        subprocess.run([COMPILER, *flags, "-o", str(library), str(code)], check=True)
        return ctypes.CDLL(str(library))

    return compile_stand_in


def bindings(releases: tuple[str, ...]) -> Any:
    """The two structures as these releases declare them, enough of the module for the check."""
    declared = {}
    for struct in abi.STRUCTS:
        entries = [(name, abi._TYPES[kind]) for name, kind in fields(releases, struct)]
        declared[struct] = type(struct, (ctypes.Structure,), {"_fields_": entries})
    return SimpleNamespace(**declared)


def test_the_table_is_whole() -> None:
    known = abi.releases()
    assert known == sorted(known, key=lambda release: int(release.split(".")[-1]))
    for layout in TABLE["layouts"]:
        for struct in abi.STRUCTS:
            names = [entry.split(":")[0] for entry in layout[struct].split()]
            assert set(names) <= set(TABLE["defaults"][struct])
    for first, last in TABLE["symbols"]["some"].values():
        assert known.index(first) <= known.index(last)


def test_sizes_are_those_that_the_headers_give() -> None:
    sizes = {
        layout["releases"][0]: tuple(abi._parsed(layout[struct]).size for struct in abi.STRUCTS)
        for layout in TABLE["layouts"]
    }
    assert sizes == {
        "0.3.19": (136, 72),
        "0.3.24": (144, 72),
        "0.3.25": (152, 72),
        "0.3.28": (160, 72),
        "0.3.35": (160, 72),
        "0.3.36": (160, 80),
    }


@needs_compiler
@pytest.mark.parametrize("releases", LAYOUTS, ids=lambda releases: releases[0])
def test_each_layout_fits_its_own_library_and_no_other(
    releases: tuple[str, ...], build: Build
) -> None:
    library = build(releases)
    for other in LAYOUTS:
        found = abi.check(library, bindings(other))
        assert (found == []) == (other == releases), (other, found)
    expected = [release for release in releases if not abi.missing_symbols(library, release)]
    assert abi.fitting_releases(library) == expected
    assert releases[-1] in expected


@needs_compiler
def test_a_fitting_library_fits_whatever_state_the_heap_is_in(build: Build) -> None:
    """Freeing what painted the stack gives memory back to the system in some states: that runs
    deeper in the stack, and left traces that were taken for a longer struct.
    """
    library, size = build(("0.3.36",)), 160
    chance = random.Random(3)
    found = set()
    for _ in range(3000):
        blocks = [bytes(chance.randrange(1000, 120_000)) for _ in range(chance.randrange(1, 40))]
        _kept = blocks[:: chance.randrange(1, 4)]
        del blocks
        found.add(abi.default_params(library, "llama_context_params").reach)
    assert found <= {size, None}
    assert size in found


@needs_compiler
def test_a_moved_field_is_named_with_what_fits(build: Build, tmp_path: Path) -> None:
    library = build(("0.3.36",))
    old = ("0.3.19", "0.3.20", "0.3.21", "0.3.22", "0.3.23")
    said = abi.complaint(tmp_path / "libllama.so", "0.3.23", library, bindings(old)) or ""
    assert "llama-cpp-python 0.3.23 does not fit" in said
    assert "llama_context_params.n_threads is 0 instead of 4" in said
    assert "pip install --no-cache-dir 'llama-cpp-python==0.3.36'" in said


@needs_compiler
def test_another_default_is_a_mismatch(build: Build) -> None:
    releases = ("0.3.36",)
    found = abi.check(build(releases, type_k="8"), bindings(releases))
    assert found == [abi.Mismatch("llama_context_params", "type_k", 8, 1)]


@needs_compiler
@pytest.mark.parametrize("spare", [1, 40])
def test_a_field_behind_the_last_one_shows(spare: int, build: Build, tmp_path: Path) -> None:
    """Every known field is right, and yet the library's struct is larger: it would read past."""
    releases = ("0.3.36",)
    library = build(
        releases,
        extra=f"void *later[{spare}];",
        also=f"for (int i = 0; i < {spare}; i++) p.later[i] = 0;",
    )
    found = abi.check(library, bindings(releases))
    assert found == [abi.Mismatch("llama_context_params", "sizeof", 160 + 8 * spare, 160)]
    assert "None of the releases 0.3.19 to 0.3.36 fits" in (
        abi.complaint(tmp_path / "libllama.so", "0.3.36", library, bindings(releases)) or ""
    )


@needs_compiler
def test_a_missing_symbol_rules_its_releases_out(build: Build, tmp_path: Path) -> None:
    old = ("0.3.19", "0.3.20", "0.3.21", "0.3.22", "0.3.23")
    library = build(old, without="llama_state_seq_get_size_ext")
    assert abi.missing_symbols(library, "0.3.23") == ["llama_state_seq_get_size_ext"]
    assert abi.fitting_releases(library) == ["0.3.21", "0.3.22"]
    error = AttributeError("undefined symbol")
    said = abi.complaint(tmp_path / "libllama.so", "0.3.23", library, None, error) or ""
    assert "the library has no llama_state_seq_get_size_ext." in said
    assert "llama-cpp-python==0.3.22'" in said


def test_a_library_that_is_no_llama_is_refused(tmp_path: Path) -> None:
    said = abi.complaint(tmp_path / "libllama.so", "0.3.36", ctypes.CDLL(None), None, OSError("x"))
    assert "cannot be driven by llama-cpp-python" in (said or "")


def test_nothing_is_known_of_a_release_to_come() -> None:
    assert abi.missing_symbols(ctypes.CDLL(None), "9.9.9") == []


def library_file(path: Path, *sources: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\0" + b"".join(name.encode() + b"\0" for name in sources))
    return path


def test_libraries_of_one_build() -> None:
    """Nothing mapped, nothing to say."""
    assert abi.mixture(Path(__file__), []) is None


def test_one_build_with_versioned_names_and_links(tmp_path: Path) -> None:
    real = library_file(tmp_path / "libllama.so.0.0.1", "/home/me/src/llama.cpp/src/llama-arch.cpp")
    base = library_file(tmp_path / "libggml-base.so.0", "/home/me/src/llama.cpp/ggml/src/ggml.c")
    link = tmp_path / "libllama.so"
    link.symlink_to(real.name)
    assert abi.mixture(link, [real, base]) is None


def test_links_into_several_folders_are_the_users_choice(tmp_path: Path) -> None:
    """A system's lib folder links to one folder per package."""
    llama = library_file(tmp_path / "cellar" / "llama" / "libllama.so")
    ggml = library_file(tmp_path / "cellar" / "ggml" / "libggml.so")
    folder = tmp_path / "lib"
    folder.mkdir()
    for real in (llama, ggml):
        (folder / real.name).symlink_to(real)
    assert abi.mixture(folder / "libllama.so", [llama, ggml]) is None


def test_a_library_from_elsewhere_is_named(tmp_path: Path) -> None:
    own = library_file(tmp_path / "a" / "libllama.so")
    stray = library_file(tmp_path / "b" / "libggml-base.so.0")
    said = abi.mixture(own, [own, stray]) or ""
    assert str(stray) in said
    assert "LD_LIBRARY_PATH" in said


def test_two_source_trees_are_two_builds(tmp_path: Path) -> None:
    own = library_file(tmp_path / "libllama.so", "/a/src/models/x.cpp", "/a/src/llama-arch.cpp")
    other = library_file(tmp_path / "libggml.so", "/b/c/ggml/src/ggml-backend-reg.cpp")
    same = library_file(tmp_path / "libggml-cpu.so", "/a/ggml/src/ggml-cpu/ops.cpp")
    assert abi.mixture(own, [own, same]) is None
    said = abi.mixture(own, [own, same, other]) or ""
    assert "libggml.so from /b/c" in said
    assert "libllama.so from /a" in said


@pytest.mark.parametrize(
    "sources", [[], ["ggml/src/ggml.c"], ["/x/src/ggml.c"], ["/ggml/src/"]], ids=str
)
def test_no_path_no_proof(sources: list[str], tmp_path: Path) -> None:
    assert abi.source_tree(library_file(tmp_path / "libggml.so", *sources)) is None
    (tmp_path / "libggml-empty.so").write_bytes(b"")
    assert abi.source_tree(tmp_path / "libggml-empty.so") is None


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    own = library_file(tmp_path / "libllama.so", "/a/src/llama-arch.cpp")
    error = OSError("undefined symbol: ggml_rope_set_offset")
    assert "LD_LIBRARY_PATH" in abi.load_complaint(own, error)
    library_file(tmp_path / "libggml.so", "/b/ggml/src/ggml.c")
    said = abi.load_complaint(own, error)
    assert "undefined symbol" in said
    assert "mixes libraries of different builds" in said


def test_paths_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = library_file(tmp_path / "libllama.so")
    monkeypatch.chdir(tmp_path)
    assert abi.mixture(Path("libllama.so"), [own]) is None
