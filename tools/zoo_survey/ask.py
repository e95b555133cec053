"""Write a GGUF file of any architecture: the library itself says which tensors it wants.

``llama_model_init_from_user`` takes a header and calls back for each tensor that it creates; what
was given to it then goes into a file. ``python -m tools.zoo_survey.ask ARCH OUT [LIBRARY]``.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.zoo.declaration import Value
from pytest_kvquant.zoo.writer import add_value, add_vocabulary, finish, full_key
from tools.zoo_survey.headers import header

F32, F16 = 0, 1
"""ggml types."""


class _InitParams(ctypes.Structure):
    """``struct gguf_init_params``."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def described(path: Path, architecture: str, keys: dict[str, Value]) -> Any:
    """A writer with the header added."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        add_value(writer, full_key(architecture, key), value)
    size = keys["vocab_size"]
    assert isinstance(size, int)
    add_vocabulary(writer, size)
    return writer


def tensors(library: LoadedLibrary, path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """What the library asks for when it loads the header in ``path``; ``None``: it refuses it."""
    llama, pointer = library.llama, ctypes.c_void_p
    name_of = library.function("ggml_get_name", ctypes.c_char_p, pointer)
    size_of = library.function("ggml_nbytes", ctypes.c_size_t, pointer)
    dims_of = library.function("ggml_n_dims", ctypes.c_int, pointer)
    put = library.function(
        "ggml_backend_tensor_set", None, pointer, pointer, ctypes.c_size_t, ctypes.c_size_t
    )
    found: dict[str, npt.NDArray[Any]] = {}

    def give(tensor: int, _data: object) -> None:
        name = name_of(tensor).decode()
        kind = ctypes.c_int32.from_address(tensor).value
        sizes = list((ctypes.c_int64 * 4).from_address(tensor + 16))[: dims_of(tensor)]
        values = weights(name, tuple(reversed(sizes)), half=kind == F16)
        if kind not in (F32, F16) or values.nbytes != size_of(tensor):
            raise ValueError(f"{name}: {size_of(tensor)} bytes of type {kind}")
        put(tensor, values.ctypes.data, 0, values.nbytes)
        found[name] = values

    callback = ctypes.CFUNCTYPE(None, pointer, pointer)(give)
    open_header = library.function("gguf_init_from_file", pointer, ctypes.c_char_p, _InitParams)
    load = library.function(
        "llama_model_init_from_user", pointer, pointer, type(callback), pointer,
        llama.llama_model_params,
    )  # fmt: skip
    llama.llama_backend_init()
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = load(open_header(str(path).encode(), _InitParams(True, None)), callback, None, params)
    return found if model else None


def weights(name: str, shape: tuple[int, ...], *, half: bool) -> npt.NDArray[Any]:
    """Ones for norms, negative values for a state's decay, else normal values by fan-in."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if "ssm_a" in name:
        drawn = -np.abs(drawn) - 0.1
    elif len(shape) == 1:
        drawn = 1 + 0.1 * drawn if name.endswith("weight") or "scale" in name else 0.1 * drawn
    else:
        drawn *= shape[-1] ** -0.5
    return drawn.astype(np.float16 if half else np.float32)


def build(library: LoadedLibrary, architecture: str, path: Path) -> bool:
    """Write ``architecture`` to ``path``, dense or, if it must be, with experts."""
    for experts in (True, False):
        keys = header(architecture, experts=experts)
        with tempfile.TemporaryDirectory() as folder:
            bare = Path(folder) / "header.gguf"
            finish(described(bare, architecture, keys))
            found = tensors(library, bare)
        if found:
            writer = described(path, architecture, keys)
            for name, values in found.items():
                writer.add_tensor(name, values)
            finish(writer)
            return True
    return False


if __name__ == "__main__":
    chosen = sys.argv[3] if len(sys.argv) > 3 else None
    sys.exit(0 if build(LoadedLibrary(chosen), sys.argv[1], Path(sys.argv[2])) else 3)
