"""Child side: llama.cpp's own options in its parameter structs; an option that this build has not
is told, never dropped."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.engine.child.llama import Address
from pytest_kvquant.engine.options import Options, choice, flag, number, numbers, whole, words
from pytest_kvquant.engine.scaled_file import with_scale
from pytest_kvquant.numerics.arrays import F32

if TYPE_CHECKING:
    from pytest_kvquant.engine.child.llama import Floats

SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
"""``enum llama_split_mode``."""
ROPE_SCALING = {"none": 0, "linear": 1, "yarn": 2, "longrope": 3}
"""``enum llama_rope_scaling_type``."""
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
"""``enum llama_flash_attn_type``."""
NUMA = {"distribute": 1, "isolate": 2, "numactl": 3}
"""``enum ggml_numa_strategy``."""
LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""``enum llama_load_mode`` by mmap and mlock, of builds that have it."""
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""Tensors of experts, as llama.cpp's ``--cpu-moe`` names them."""

_PLAIN_CONTEXT = {
    "kv-offload": "offload_kqv", "op-offload": "op_offload",
    "swa-full": "swa_full", "threads-batch": "n_threads_batch", "rope-freq-base": "rope_freq_base",
    "rope-freq-scale": "rope_freq_scale", "yarn-orig-ctx": "yarn_orig_ctx",
    "yarn-ext-factor": "yarn_ext_factor", "yarn-attn-factor": "yarn_attn_factor",
    "yarn-beta-slow": "yarn_beta_slow", "yarn-beta-fast": "yarn_beta_fast",
}  # fmt: skip
"""Options of a context that are a field each."""


class TensorOverride(ctypes.Structure):
    """``struct llama_model_tensor_buft_override``."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


class ModelSetup:
    """What the options of a model become; holds what the parameters point to.

    Args:
        setup: name of an option to its value.

    Raises:
        BadLibrary: this build lacks an option, a device or a buffer type.
    """

    def __init__(self, library: LoadedLibrary, setup: Options) -> None:
        self._library, self._llama, self._setup = library, library.llama, setup
        self._kept: list[object] = []

    def prepare(self) -> None:
        """What goes before the backends start."""
        sequences, most = whole(self._setup, "parallel"), self._llama.llama_max_parallel_sequences()
        if sequences > most:
            raise BadLibrary(f"parallel {sequences}: this build holds {most} sequences at most.")
        if "numa" in self._setup:
            self._llama.llama_numa_init(choice(self._setup, "numa", NUMA))

    def apply(self, params: ctypes.Structure) -> None:
        """Set the fields of ``llama_model_params``."""
        setup = self._setup
        if "main-gpu" in setup:
            params.main_gpu = whole(setup, "main-gpu")
        if "split-mode" in setup:
            params.split_mode = choice(setup, "split-mode", SPLIT_MODES)
        if "tensor-split" in setup:
            params.tensor_split = self._shares(numbers(setup, "tensor-split"))
        if "mmap" in setup or "mlock" in setup:
            self._loading(params, flag(setup, "mmap", True), flag(setup, "mlock", False))
        if (overrides := self._overrides()) is not None:
            params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        if "override-kv" in setup:
            params.kv_overrides = self._header_fields(words(setup, "override-kv"))

    def adapters(self, model: Address) -> list[tuple[Address, float]]:
        """LoRA adapters, loaded for a model: pointer and scale of each."""
        found = []
        for word in words(self._setup, "lora"):
            path, scale = with_scale(word)
            pointer = self._llama.llama_adapter_lora_init(model, path.encode())
            if not pointer:
                raise BadLibrary(f"llama.cpp does not load the LoRA adapter {path} for this model.")
            found.append((pointer, scale))
        return found

    def _shares(self, shares: list[float]) -> Floats:
        most = int(self._llama.llama_max_devices())
        if len(shares) > most:
            raise BadLibrary(f"tensor-split has {len(shares)} shares; this build knows {most}.")
        array = (ctypes.c_float * most)(*shares)
        self._kept.append(array)
        return ctypes.cast(array, ctypes.POINTER(ctypes.c_float))

    def _loading(self, params: ctypes.Structure, mmap: bool, mlock: bool) -> None:
        if hasattr(params, "use_mmap"):
            params.use_mmap, params.use_mlock = mmap, mlock
        else:
            set_field(self._library, params, "load_mode", LOAD_MODES[mmap, mlock], "mmap, mlock")

    def _overrides(self) -> ctypes.Array[TensorOverride] | None:
        """Patterns of tensors and the buffer types they go to; an entry of nulls ends them."""
        setup = self._setup
        pairs = [word.rpartition("=")[::2] for word in words(setup, "override-tensor")]
        if flag(setup, "cpu-moe", False):
            pairs.append((EXPERTS, "CPU"))
        pairs += [(rf"blk\.{layer}{EXPERTS}", "CPU") for layer in range(whole(setup, "n-cpu-moe"))]
        if not pairs:
            return None
        types = self._library.buffer_types()
        entries = []
        for pattern, name in pairs:
            if not pattern or name not in types:
                raise BadLibrary(
                    f"override-tensor {pattern}={name}: this build has no such buffer type; it "
                    f"has {', '.join(types)}."
                )
            entries.append(TensorOverride(pattern.encode(), types[name]))
        array = (TensorOverride * (len(entries) + 1))(*entries)
        self._kept.append(array)
        return array

    def _header_fields(self, fields: list[str]) -> ctypes.Array[ctypes.Structure]:
        """``key=int:4`` and the like, as ``struct llama_model_kv_override``; an empty key ends."""
        kind = self._llama.llama_model_kv_override
        array: ctypes.Array[ctypes.Structure] = (kind * (len(fields) + 1))()
        for entry, word in zip(array, fields, strict=False):
            key, _, typed = word.partition("=")
            type_name, colon, value = typed.partition(":")
            if not key or not colon or type_name not in ("int", "float", "bool", "str"):
                raise BadLibrary(
                    f"override-kv {word}: write key=type:value, where type is int, float, bool "
                    "or str."
                )
            entry.key = key.encode()
            entry.tag = {"int": 0, "float": 1, "bool": 2, "str": 3}[type_name]
            if type_name == "int":
                entry.value.val_i64 = int(value)
            elif type_name == "float":
                entry.value.val_f64 = float(value)
            elif type_name == "bool":
                entry.value.val_bool = value == "true"
            else:
                entry.value.val_str = value.encode()
        self._kept.append(array)
        return array


def apply_context(library: LoadedLibrary, params: ctypes.Structure, setup: Options) -> None:
    """Set the fields of ``llama_context_params``.

    Raises:
        BadLibrary: this build lacks one.
    """
    for name, value in setup.items():
        if name in _PLAIN_CONTEXT:
            set_field(library, params, _PLAIN_CONTEXT[name], value, name)
    if "flash-attn" in setup:
        found = choice(setup, "flash-attn", FLASH_ATTENTION)
        set_field(library, params, "flash_attn_type", found, "flash-attn")
    if "rope-scaling" in setup:
        params.rope_scaling_type = choice(setup, "rope-scaling", ROPE_SCALING)
    if "rope-scale" in setup:
        params.rope_freq_scale = 1 / number(setup, "rope-scale")
    if flag(setup, "kv-unified", False):  # what has to be unified stays so
        params.kv_unified = True
    _hold(params, whole(setup, "parallel"))


def _hold(params: ctypes.Structure, sequences: int) -> None:
    """Make the context hold so many sequences at least, each in as many tokens as before.

    Without a unified cache llama.cpp divides ``n_ctx`` by ``n_seq_max``.
    """
    if sequences <= params.n_seq_max:
        return
    if not params.kv_unified:
        params.n_ctx = params.n_ctx // params.n_seq_max * sequences
    params.n_seq_max = sequences


class Adapted(Protocol):
    """What of a loaded model goes onto each of its contexts."""

    adapters: list[tuple[Address, float]]
    """LoRA adapters, and the scale of each."""
    control: F32 | None
    """Control vectors, shape ``(layers, width)``."""


def attach(library: LoadedLibrary, context: Address, model: Adapted) -> None:
    """Put LoRA adapters and control vectors on a context that was made.

    Args:
        model: the loaded model.

    Raises:
        BadLibrary: llama.cpp takes one of them not.
    """
    llama = library.llama
    if model.adapters:
        # The bindings return a typed pointer, which an array of addresses does not take as it is.
        addresses = [ctypes.cast(one, ctypes.c_void_p) for one, _ in model.adapters]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        scales = (ctypes.c_float * len(model.adapters))(*[scale for _, scale in model.adapters])
        take = library.function(
            "llama_set_adapters_lora", ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_size_t, ctypes.c_void_p,
        )  # fmt: skip
        if take(ctypes.cast(context, ctypes.c_void_p), pointers, len(pointers), scales):
            raise BadLibrary("llama.cpp does not take the LoRA adapters on this context.")
    if model.control is not None:
        layers, width = model.control.shape
        take = getattr(llama, "llama_set_adapter_cvec", None) or llama.llama_apply_adapter_cvec
        data = model.control.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        if take(context, data, model.control.size, width, 1, layers + 1):
            raise BadLibrary("llama.cpp does not take the control vector on this context.")


def read_control(setup: Options, width: int, layers: int) -> F32 | None:
    """The sum of all control vectors, float32 of shape ``(layers, width)``; ``None`` without any.

    Each was written by the parent as a NumPy file beside its scale.

    Raises:
        BadLibrary: one is of another model.
    """
    total: F32 | None = None
    for word in words(setup, "control-vector"):
        path, scale = with_scale(word)
        found = np.load(path)
        if found.shape[1] != width or found.shape[0] > layers:
            raise BadLibrary(
                f"The control vector {Path(path).name} is of {found.shape[0]} layers of "
                f"{found.shape[1]}; the model has {layers} of {width}."
            )
        own = np.zeros((layers, width), np.float32)
        own[: len(found)] = scale * found
        total = own if total is None else total + own
    return total


def set_field(
    library: LoadedLibrary, params: ctypes.Structure, field: str, value: object, name: str
) -> None:
    """Set a field of a parameter struct, if this build has it.

    Raises:
        BadLibrary: it has not.
    """
    if not hasattr(params, field):
        raise BadLibrary(f"{library.path} has no '{field}': {name} cannot be set on this build.")
    setattr(params, field, value)
