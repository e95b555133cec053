"""What changes f16's logits changes the key that they are stored under, field by field."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_kvquant.engine.child import library as child
from pytest_kvquant.engine.child import library_files
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.shaders import RESOURCES, shader_files
from pytest_kvquant.machine.environment import WORKER_HOOK, scrub
from pytest_kvquant.machine.versions import driver_version, os_version
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.library import Device, Library
from pytest_kvquant.session.reference_key import ReferenceConditions

CHIP = Device(name="CUDA0", description="H200", gpu=True, free=1, total=1)
LIBRARY = Library(
    path="/build/libllama.so", bindings="0.3.36", python="3.11", llama_version=None,
    ggml_version=None, ggml_commit=None, system_info=None, files=(), hash="aa", devices=(CHIP,),
    types={}, backends=("CUDA", "CPU"),
)  # fmt: skip
SHAPE = BatchShape(ctx=512, scored=255, sequences=4, batch=2048, ubatch=512, threads=2)
USUAL: dict[str, Any] = {
    "model": "m", "order": "shuffled", "seed": 0, "gpu_layers": -1, "shape": SHAPE,
    "library": LIBRARY, "environment": scrub({}, {}), "setup": {}, "os_version": "debian 12",
    "driver": "nvidia 570.1",
}  # fmt: skip

CHANGES = {
    "model": "n",
    "order": "sequential",
    "seed": 1,
    "gpu_layers": 0,
    "library": msgspec.structs.replace(LIBRARY, hash="bb"),
    "environment": scrub({}, {"GGML_CUDA_FORCE_MMQ": "1"}),
    "setup": {"flash-attn": "off"},
    "os_version": "debian 13",
    "driver": "nvidia 580.2",
}
"""Of each field another value; those of the shape and the device are below."""


def key(pair: Pair = REFERENCE, text: str = "t", **changes: Any) -> str:
    return repr(ReferenceConditions(**{**USUAL, **changes}).key(pair, text))


@pytest.mark.parametrize("field", ReferenceConditions._fields)
def test_each_field_counts(field: str) -> None:
    if field == "shape":
        for name in SHAPE.__struct_fields__:
            other = msgspec.structs.replace(SHAPE, **{name: 1 + getattr(SHAPE, name)})
            assert key(shape=other) != key(), name
        return
    assert key(**{field: CHANGES[field]}) != key()


def test_the_device_the_text_and_the_pair_count() -> None:
    chip = msgspec.structs.replace(CHIP, description="H100")
    assert key(library=msgspec.structs.replace(LIBRARY, devices=(chip,))) != key()
    assert key(library=msgspec.structs.replace(LIBRARY, devices=(chip, chip))) != key(
        library=msgspec.structs.replace(LIBRARY, devices=(chip,))
    )
    assert key(text="u") != key()
    assert key(pair=Pair("q8_0", "q8_0")) != key()


def test_what_a_hook_holds_counts_not_only_where_it_lies(tmp_path: Path) -> None:
    hook = tmp_path / "hook.py"
    hook.write_text("a = 1")
    environment = scrub({}, {WORKER_HOOK: str(hook)})
    before = key(environment=environment)
    hook.write_text("a = 2")
    assert key(environment=environment) != before


def test_a_shader_that_is_compiled_at_run_time_is_part_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash of a build covers them: an edited kernel is another build."""
    (tmp_path / "kernels").mkdir()
    shader = tmp_path / "kernels" / "fa.metal"
    shader.write_text("kernel void a() {}")
    monkeypatch.setenv(RESOURCES, str(tmp_path))
    monkeypatch.setattr(library_files, "loaded_files", lambda _folder: [])

    class Pretended(child.LoadedLibrary):
        def __init__(self) -> None:
            self.path, self.bindings, self.types = tmp_path / "libllama.so", "", {}
            self._hashed = library_files.Hashed([])  # before its backends were loaded

        def _text(self, _name: str) -> None: ...

        def devices(self) -> list[dict[str, Any]]:
            return []

        def backends(self) -> list[str]:
            return []

    found = Pretended().identity()
    assert shader_files(tmp_path) == [shader]
    assert found["files"] == ["fa.metal"]
    assert found["hash"] == hashlib.sha256(b"kernel void a() {}").hexdigest()[:16]
    shader.write_text("kernel void b() {}")
    assert Pretended().identity()["hash"] != found["hash"]


NVIDIA = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OLDER_NVIDIA = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"proc/driver/nvidia/version": NVIDIA}, "nvidia 570.133.20"),
        ({"proc/driver/nvidia/version": OLDER_NVIDIA}, "nvidia 535.183.01"),
        ({"sys/module/amdgpu/version": "6.8.5\n"}, "amdgpu 6.8.5"),
        ({"sys/module/xe/parameters": ""}, "xe 6.12-kernel"),
        ({}, ""),
    ],
)
def test_the_driver_of_a_gpu(
    files: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.12-kernel")
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert driver_version(gpu=True, root=tmp_path) == told
    assert driver_version(gpu=False, root=tmp_path) == ""


def test_the_system_and_its_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(
        'PRETTY_NAME="Debian GNU/Linux 12"\nVERSION_ID="12"\nID=debian\n'
    )
    assert os_version(tmp_path) == "debian 12, glibc 2.36"
    assert os_version(tmp_path / "absent") == "Linux, glibc 2.36"


def test_a_mac_names_its_build_which_brings_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    folder = tmp_path / "System/Library/CoreServices"
    folder.mkdir(parents=True)
    (folder / "SystemVersion.plist").write_text(
        "<dict><key>ProductBuildVersion</key>\n<string>24F74</string></dict>"
    )
    assert os_version(tmp_path) == "macOS 15.5 24F74"
    assert driver_version(gpu=True, root=tmp_path) == ""
