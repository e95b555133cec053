"""Child side: find libllama, load the bindings onto it, name its cache types.

The low-level module ``llama_cpp.llama_cpp`` is loaded without the package around it: that would
import a chat server's worth of modules and load the bundled ggml beside the one in use. Every
ggml function is looked up through the handle of libllama itself, which searches the very ggml
libraries that it was linked with: a ``libggml.so`` found by path could be another copy.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from pytest_kvquant.engine.child import abi, backends
from pytest_kvquant.engine.child.cache_types import read_types
from pytest_kvquant.engine.child.device_watch import DeviceWatch
from pytest_kvquant.engine.child.library_files import Hashed, files_in_use, loaded_files
from pytest_kvquant.engine.child.llama import CFunction, Llama

if TYPE_CHECKING:
    from pytest_kvquant.engine.child.llama import CType

INTEGRATED, ACCELERATOR = 2, 3
GPU_DEVICES = (1, INTEGRATED)
"""``enum ggml_backend_dev_type``: a graphics processor, one that shares the host's memory, and what
helps the CPU with its own memory (BLAS). Metal calls itself the first, and shares it all the same.
"""


class DeviceFound(TypedDict):
    """A backend device; memory in bytes."""

    name: str
    description: str
    gpu: bool
    accelerator: bool
    unified: bool
    """Whether it shares the host's memory."""
    free: int
    total: int


class BadLibrary(Exception):
    """The library or its bindings cannot be used; the message says why."""


def find_library(directory: Path) -> Path:
    """The libllama of a directory: plain or versioned name, ``.so`` or ``.dylib``.

    Raises:
        BadLibrary: there is none.
    """
    for name in ("libllama.so", "libllama.dylib"):
        if (directory / name).exists():
            return directory / name
    versioned = sorted(
        path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if re.fullmatch(r"libllama(\.so[.\d]+|[.\d]+\.dylib)", path.name)
    )
    if not versioned:
        raise BadLibrary(
            f"There is no libllama in {directory}; --kv-lib takes the directory of a llama.cpp "
            "build that holds libllama.so or libllama.dylib (build/bin, as a rule)."
        )
    return versioned[-1]


class LoadedLibrary:
    """The loaded libllama: the bindings over it, its ggml functions, its cache types."""

    def __init__(self, directory: str | None, *, identify: bool = False) -> None:
        """Load it.

        Args:
            identify: :meth:`identity` will be asked: its files are hashed meanwhile.
        """
        package = _bindings_package()
        self.bindings = _version(package)
        self.path = find_library(Path(directory) if directory else package / "lib")
        self.handle = _load(self.path)
        self._hashed = Hashed(files_in_use(self.path)) if identify else None
        self.llama = _import_bindings(package, self.path, self.handle)
        self._load_backends()
        self.types = read_types(self.function)
        self.watch = DeviceWatch()

    @functools.cached_property
    def has_gpu(self) -> bool:
        """Whether a device other than the CPU may compute."""
        return any(device["gpu"] for device in self.devices())

    def _load_backends(self) -> None:
        folder = self.path.resolve().parent
        beside = [file.resolve().parent for file in loaded_files(folder)]
        if not backends.load(self.function, [self.path.parent, folder, *beside]):
            raise BadLibrary(
                f"{self.path} has no backend for the CPU: it is a GGML_BACKEND_DL build, and its "
                f"libggml-cpu is neither in {folder} nor in the directory compiled in. Give "
                "--kv-lib a directory that holds them all."
            )

    def function(self, name: str, result: CType | None, *arguments: CType) -> CFunction:
        """A C function of libllama or of the ggml it is linked with.

        Raises:
            BadLibrary: the library does not have it.
        """
        try:
            found = self.handle[name]
        except AttributeError:
            raise BadLibrary(f"{self.path} has no function {name}.") from None
        found.restype, found.argtypes = result, arguments
        return found

    def identity(self) -> dict[str, object]:
        """What this build says of itself: path, commit, hash of the files in use, devices."""
        devices, files = self.devices(), files_in_use(self.path)
        if self._hashed is None or self._hashed.files != files:  # backends were loaded since
            self._hashed = Hashed(files)
        return {
            "path": str(self.path),
            "bindings": self.bindings,
            "python": sys.version.split()[0],
            "llama_version": self._text("llama_version"),
            "ggml_version": self._text("ggml_version"),
            "ggml_commit": self._text("ggml_commit"),
            "system_info": self._text("llama_print_system_info"),
            "files": [file.name for file in files],
            "hash": self._hashed.digest(),
            "devices": devices,
            "backends": self.backends(),
            "types": self.types,
        }

    def buffer_types(self) -> dict[str, int]:
        """Buffer types by name: of each device, and the CPU's."""
        pointer = ctypes.c_void_p
        count = self.function("ggml_backend_dev_count", ctypes.c_size_t)
        get = self.function("ggml_backend_dev_get", pointer, ctypes.c_size_t)
        of_device = self.function("ggml_backend_dev_buffer_type", pointer, pointer)
        name = self.function("ggml_backend_buft_name", ctypes.c_char_p, pointer)
        found = [of_device(get(index)) for index in range(count())]
        return {name(one).decode(): one for one in found if one}

    def device_list(self, name: str) -> ctypes.Array[ctypes.c_void_p]:
        """``llama_model_params.devices`` for one device; an empty list leaves only the CPU."""
        pointer = ctypes.c_void_p
        by_name = self.function("ggml_backend_dev_by_name", pointer, ctypes.c_char_p)
        kind = self.function("ggml_backend_dev_type", ctypes.c_int, pointer)
        device = by_name(name.encode())
        if not device:
            raise BadLibrary(f"{self.path} has no device {name}.")
        found = [device] if kind(device) != backends.CPU_DEVICE else []
        return (pointer * (len(found) + 1))(*found, None)

    def devices(self) -> list[DeviceFound]:
        """Backend devices: name, description, free and total memory in bytes."""
        pointer = ctypes.c_void_p
        count = self.function("ggml_backend_dev_count", ctypes.c_size_t)
        get = self.function("ggml_backend_dev_get", pointer, ctypes.c_size_t)
        name = self.function("ggml_backend_dev_name", ctypes.c_char_p, pointer)
        description = self.function("ggml_backend_dev_description", ctypes.c_char_p, pointer)
        kind = self.function("ggml_backend_dev_type", ctypes.c_int, pointer)
        memory = self.function(
            "ggml_backend_dev_memory",
            None,
            pointer,
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.POINTER(ctypes.c_size_t),
        )
        found: list[DeviceFound] = []
        for index in range(count()):
            device = get(index)
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            memory(device, ctypes.byref(free), ctypes.byref(total))
            if free.value > total.value:  # some Metal builds count below zero, and it wraps
                free.value = 0
            found.append(
                {
                    "name": name(device).decode(),
                    "description": description(device).decode(),
                    "gpu": kind(device) in GPU_DEVICES,
                    "accelerator": kind(device) == ACCELERATOR,
                    "unified": kind(device) == INTEGRATED or name(device).startswith(b"MTL"),
                    "free": free.value,
                    "total": total.value,
                }
            )
        return found

    def backends(self) -> list[str]:
        """Names of the backends that this build has registered: ``CPU``, ``CUDA``, ``MTL``, …

        RPC counts where a server is connected, as ``llama-bench`` has it.
        """
        pointer = ctypes.c_void_p
        count = self.function("ggml_backend_reg_count", ctypes.c_size_t)
        get = self.function("ggml_backend_reg_get", pointer, ctypes.c_size_t)
        name = self.function("ggml_backend_reg_name", ctypes.c_char_p, pointer)
        devices = self.function("ggml_backend_reg_dev_count", ctypes.c_size_t, pointer)
        found = [(name(entry).decode(), devices(entry)) for entry in map(get, range(count()))]
        return [name for name, held in found if held or not name.startswith("RPC")]

    def _text(self, name: str) -> str | None:
        try:
            value = self.function(name, ctypes.c_char_p)()
        except BadLibrary:
            return None
        return value.decode(errors="replace").strip() if value else None


def _bindings_package() -> Path:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise BadLibrary(
            f"llama-cpp-python is not installed for {sys.executable}; "
            "install it with: pip install llama-cpp-python"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _version(package: Path) -> str:
    """The release of the bindings, from their source: ``importlib.metadata`` loads for 30 ms."""
    text = (package / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r"""^__version__ = ["'](.+)["']""", text, re.MULTILINE)
    return found[1] if found else "unknown"


def _load(library: Path) -> ctypes.CDLL:
    try:
        handle = ctypes.CDLL(str(library))
    except OSError as error:
        raise BadLibrary(abi.load_complaint(library, error)) from error
    if complaint := abi.mixture(library, loaded_files(library.resolve().parent)):
        raise BadLibrary(complaint)
    return handle


def _import_bindings(package: Path, library: Path, handle: ctypes.CDLL) -> Llama:
    version = _version(package)
    shell = types.ModuleType("llama_cpp")
    shell.__path__ = [str(package)]
    sys.modules["llama_cpp"] = shell
    extensions = importlib.import_module("llama_cpp._ctypes_extensions")
    extensions.load_shared_library = lambda _name, _folder: handle  # type: ignore[attr-defined]
    try:
        bindings = importlib.import_module("llama_cpp.llama_cpp")
    except (AttributeError, OSError) as error:
        raise BadLibrary(abi.complaint(library, version, handle, None, error)) from error
    if complaint := abi.complaint(library, version, handle, bindings):
        raise BadLibrary(complaint)
    return cast("Llama", bindings)
