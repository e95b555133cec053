"""Builds of Macs: backends in files of their own, kernels read at run time, debug ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.child import backends
from pytest_kvquant.engine.shaders import RESOURCES, resources, shader_files
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.session.builds import measured_engine, reference_engine


class Ggml:
    """A libggml whose CPU backend lies in one folder."""

    def __init__(self, where: str | None) -> None:
        self.where = where
        self.loaded = False
        self.asked: list[tuple[str | None, str]] = []

    def function(self, name: str, *_types: Any) -> Callable[..., Any]:
        return getattr(self, name)  # type: ignore[no-any-return]

    def ggml_backend_dev_count(self) -> int:
        return int(self.loaded)

    def ggml_backend_dev_get(self, number: int) -> int:
        return number

    def ggml_backend_dev_type(self, _device: int) -> int:
        return backends.CPU_DEVICE

    def ggml_backend_load_all_from_path(self, path: bytes | None) -> None:
        folder = os.fsdecode(path) if path is not None else None
        self.asked.append((folder, str(Path.cwd())))
        self.loaded |= folder == self.where


def test_backends_are_loaded_from_beside_the_library(tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    for folder in (near, far):
        folder.mkdir()
    (far / "libggml-cpu.so").touch()
    ggml = Ggml(str(far))
    assert backends.load(ggml.function, [near, near, far])
    assert [folder for folder, _ in ggml.asked] == [str(far)]


def test_backends_of_a_compiled_in_folder_and_never_of_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ggml = Ggml(None)
    assert backends.load(ggml.function, [tmp_path / "nothing"])
    assert ggml.asked == [(None, "/")]
    assert Path.cwd() == tmp_path


def test_no_backend_anywhere(tmp_path: Path) -> None:
    assert not backends.load(Ggml("elsewhere").function, [tmp_path])


def test_a_build_with_its_backends_inside_is_left_alone(tmp_path: Path) -> None:
    ggml = Ggml("nowhere")
    ggml.loaded = True
    assert backends.load(ggml.function, [tmp_path])
    assert not ggml.asked


DEBUG_BUILD = """
import ctypes
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.cache_types import TypeTraits, read_types

library = LoadedLibrary(None)
asked = []

def function(name, result, *arguments):
    found = library.function(name, result, *arguments)
    if name != "ggml_get_type_traits":
        return found
    return lambda number: asked.append(number) or found(number)

assert read_types(function) == library.types
assert max(asked) <= 1
assert library.types["q8_0"]["bytes"] == 34
assert ctypes.sizeof(TypeTraits) == 56
"""


def test_types_of_a_debug_build_are_read_without_asking_beyond_the_first() -> None:
    """A debug build asserts that an id is below the number of types."""
    subprocess.run([sys.executable, "-c", DEBUG_BUILD], check=True, timeout=60)


def kernels(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_kernels_beside_a_library_are_found_and_named(tmp_path: Path) -> None:
    old = kernels(tmp_path / "old", "ggml-metal.metal", "ggml-common.h", "libllama.dylib")
    assert [file.name for file in shader_files(old)] == ["ggml-common.h", "ggml-metal.metal"]
    assert resources(str(old)) == {RESOURCES: str(old)}
    new = kernels(tmp_path / "new", "kernels/fa_q8_0.metal", "kernels/common.h")
    assert len(shader_files(new)) == 2
    embedded = kernels(tmp_path / "embedded", "libllama.dylib", "llama.h")
    assert shader_files(embedded) == []
    assert resources(str(embedded)) == {}
    assert resources(None) == {}


def test_the_place_of_kernels_is_no_toggle() -> None:
    found = scrub({RESOURCES: "/kernels", "GGML_METAL_BF16_DISABLE": "1", "MTL_DEBUG_LAYER": "1"},
                  {})  # fmt: skip
    assert found.variables[RESOURCES] == "/kernels"
    assert found.dropped == {"GGML_METAL_BF16_DISABLE": "1", "MTL_DEBUG_LAYER": "1"}


@pytest.mark.parametrize("name", ["METAL_DEVICE_WRAPPER_TYPE", "MTL_SHADER_VALIDATION",
                                  "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"])  # fmt: skip
def test_what_changes_metal_is_left_out_unless_it_is_configured(name: str) -> None:
    assert name not in scrub({name: "1"}, {}).variables
    assert scrub({name: "1"}, {name: "2"}).variables[name] == "2"


def test_a_relative_library_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader of a hardened Python refuses relative paths."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(lib=Path("build/bin"), reference_lib=Path("base/bin"))
    environment = scrub({}, {})
    assert measured_engine(settings, {}, environment).directory == str(tmp_path / "build/bin")
    other = reference_engine(settings, environment)
    assert other is not None
    assert other.directory == str(tmp_path / "base/bin")
