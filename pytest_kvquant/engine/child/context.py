"""Child side: a model, a context with the cell's cache types, batches of tokens."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.llama import Llama
from pytest_kvquant.engine.child.setup import ModelSetup, apply_context, attach, read_control
from pytest_kvquant.engine.child.vocabulary import ModelVocabulary, Refused
from pytest_kvquant.engine.options import Options
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.numerics.arrays import F32, I32

if TYPE_CHECKING:
    from typing import Unpack

    from pytest_kvquant.engine.messages.context import ContextFields

FLASH_ATTENTION_ENABLED = 1


class DecodeFailed(Exception):
    """``llama_decode`` returned an error code."""


class DeviceFailed(DecodeFailed):
    """``llama_decode`` returned none, and the device computed nothing; why is in the log."""


class LoadedModel(ModelVocabulary):
    """A loaded GGUF model and its vocabulary.

    Args:
        device: the ggml device to use alone; ``None``: those that llama.cpp chooses.
        vocabulary_only: read no weights: such a model can only tokenize.
        setup: options of llama.cpp, of the model and of its contexts.

    Raises:
        Refused: llama.cpp does not load it.
    """

    def __init__(
        self,
        library: LoadedLibrary,
        path: str,
        *,
        gpu_layers: int,
        device: str | None = None,
        vocabulary_only: bool = False,
        setup: Options | None = None,
        keep_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.library = library
        self._keep_alive = keep_alive
        self.spans: list[tuple[str, int, int]] = []
        """Told of each ``llama_decode``: its name, start and end in nanoseconds."""
        self.setup: Options = setup or {}
        own_setup = ModelSetup(library, self.setup)
        self.llama = llama = library.llama
        own_setup.prepare()
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        if gpu_layers >= 0:
            params.n_gpu_layers = gpu_layers
        else:
            params.n_gpu_layers = 1 << 20
        params.vocab_only = vocabulary_only
        if device is not None:
            self._devices = library.device_list(device)
            params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        own_setup.apply(params)
        self._progress = llama.llama_progress_callback(self._on_progress)
        params.progress_callback = self._progress
        pointer = llama.llama_model_load_from_file(path.encode(), params)
        if not pointer:
            raise Refused(f"llama.cpp does not load {path}")
        self.pointer = pointer
        self.adapters = [] if vocabulary_only else own_setup.adapters(self.pointer)
        self.control = None
        if not vocabulary_only:
            width, layers = (
                llama.llama_model_n_embd(self.pointer),
                llama.llama_model_n_layer(self.pointer),
            )
            self.control = read_control(self.setup, width, layers)
        self.vocab = llama.llama_model_get_vocab(self.pointer)
        self.vocabulary = int(llama.llama_vocab_n_tokens(self.vocab))
        self.add_bos = bool(llama.llama_vocab_get_add_bos(self.vocab))
        own = int(llama.llama_vocab_bos(self.vocab))
        self.bos: int | None = own if self.add_bos and own >= 0 else None
        """The token that every sequence starts with; ``None``: the model wants none."""

    @property
    def keeps_all(self) -> bool:
        """Whether its memory is a row per token in every layer: no recurrent state, no window."""
        llama, pointer = self.llama, self.pointer
        return not (
            llama.llama_model_is_recurrent(pointer)
            or llama.llama_model_is_hybrid(pointer)
            or llama.llama_model_n_swa(pointer) > 0
        )

    def _on_progress(self, _share: float, _data: object) -> bool:
        self._keep_alive()
        return True

    def say_alive(self) -> None:
        """Tell the parent that a long piece of work goes on."""
        self._keep_alive()


class Context:
    """One llama.cpp context: the KV cache of one cell.

    Args:
        shape: types, tokens and sequences, as a message says them.
        prepare: may change the context's parameters before it is made.

    Raises:
        Refused: the library does not make a context of these types.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        unified: bool = False,
        prepare: Callable[[ctypes.Structure], None] = lambda _parameters: None,
        **shape: Unpack[ContextFields],
    ) -> None:
        self.model = model
        self.llama = llama = model.llama
        params = llama.llama_context_default_params()
        params.n_ctx = shape["ctx"] * shape["sequences"]
        params.n_batch = shape["batch"]
        params.n_ubatch = shape["ubatch"]
        params.n_seq_max = shape["sequences"]
        params.n_threads = params.n_threads_batch = shape["threads"]
        params.flash_attn_type = FLASH_ATTENTION_ENABLED
        params.type_k = model.library.types[shape["type_k"]]["id"]
        params.type_v = model.library.types[shape["type_v"]]["id"]
        params.kv_unified = unified
        params.swa_full = False
        params.no_perf = True
        apply_context(model.library, params, model.setup)
        prepare(params)
        pointer = llama.llama_init_from_model(model.pointer, params)
        if not pointer:
            k, v = shape["type_k"], shape["type_v"]
            raise Refused(f"llama.cpp makes no context for K {k}, V {v}")
        self.pointer = pointer
        attach(model.library, self.pointer, model)
        self.memory = llama.llama_get_memory(self.pointer)
        self.batch = int(llama.llama_n_batch(self.pointer))
        self.ubatch = int(llama.llama_n_ubatch(self.pointer))
        self.decode_ns = 0
        """Time spent inside ``llama_decode`` and its synchronization, in nanoseconds."""
        self._arrays = _BatchArrays(llama, self.batch)

    def clear(self) -> None:
        """Forget every sequence."""
        self.llama.llama_memory_clear(self.memory, True)

    def decode(
        self, tokens: I32, positions: I32, sequences: I32, outputs: npt.NDArray[np.generic]
    ) -> F32:
        """Decode tokens and return the logits of the flagged ones.

        Args:
            tokens, positions, sequences: shape ``(n,)``; more than ``n_batch`` of them are several
                batches, one after another, whatever path asks for them.
            outputs: shape ``(n,)``, truthy where logits are wanted.

        Returns:
            Shape ``(flagged, vocabulary)``, rows in the order of the tokens, valid until the next
            call: as a rule a view of the library's own buffer.

        Raises:
            DecodeFailed: with llama.cpp's code in words.
            DeviceFailed: there is no code, and the device says that it computed nothing.
        """
        if len(tokens) <= self.batch:
            return self._decode_batch(tokens, positions, sequences, outputs)
        given = (tokens, positions, sequences, np.asarray(outputs))
        pieces = [
            self._decode_batch(*(array[at : at + self.batch] for array in given)).copy()
            for at in range(0, len(tokens), self.batch)
        ]
        return np.concatenate(pieces)

    def _decode_batch(
        self, tokens: I32, positions: I32, sequences: I32, outputs: npt.NDArray[np.generic]
    ) -> F32:
        batch = self._arrays.fill(tokens, positions, sequences, outputs)
        wanted = int(np.count_nonzero(outputs))
        begun = time.perf_counter_ns()
        code = self.llama.llama_decode(self.pointer, batch)
        self.llama.llama_synchronize(self.pointer)
        ended = time.perf_counter_ns()
        self.decode_ns += ended - begun
        self.model.spans.append(("decode", begun, ended))
        if code != 0:
            raise DecodeFailed(_DECODE_CODES.get(code, f"llama_decode failed with code {code}"))
        self.check_device()
        if wanted == 0:
            return np.empty((0, self.model.vocabulary), np.float32)
        logits = self.llama.llama_get_logits(self.pointer)
        return np.ctypeslib.as_array(logits, (wanted, self.model.vocabulary))

    def check_device(self) -> None:
        """Look whether the device computed what was decoded since the last look.

        Raises:
            DeviceFailed: its backend says that it did not.
        """
        if (why := self.model.library.watch.failure()) is not None:
            raise DeviceFailed(
                f"llama_decode returned no error, and what it computed is worthless ({why})"
            )

    def prove_alive(self) -> None:
        """Decode one more token where a device other than the CPU computes; forgets all sequences.

        A device that failed unseen refuses it. The logits of the last batch stay as they are.

        Raises:
            DecodeFailed: the device does not compute any more.
        """
        if self.model.library.has_gpu:
            none = np.zeros(1, np.int32)
            self.llama.llama_memory_clear(self.memory, False)
            self.decode(from_start(none, self.model.bos), none, none, none)
            self.llama.llama_memory_clear(self.memory, False)

    def close(self) -> None:
        """Free the context."""
        self.llama.llama_free(self.pointer)


_DECODE_CODES = {
    1: "llama_decode found no room in the KV cache for the batch (code 1)",
    2: "llama_decode was aborted (code 2)",
    -1: "llama_decode refused the batch as invalid (code -1)",
    -2: "llama_decode could not allocate memory (code -2)",
    -3: "llama_decode: the compute graph failed (code -3)",
}


class _BatchArrays:
    """The arrays behind a ``llama_batch``, filled without a Python loop."""

    def __init__(self, llama: Llama, room: int) -> None:
        self.token = np.empty(room, np.int32)
        self.pos = np.empty(room, np.int32)
        self.n_seq_id = np.ones(room, np.int32)
        self.ids = np.empty(room, np.int32)
        self.seq_id = self.ids.ctypes.data + 4 * np.arange(room, dtype=np.uintp)
        self.logits = np.empty(room, np.int8)
        self.struct = llama.llama_batch()
        kinds = {entry[0]: entry[1] for entry in llama.llama_batch._fields_}
        for name in ("token", "pos", "n_seq_id", "seq_id", "logits"):
            kind = cast("type[ctypes.c_void_p]", kinds[name])
            setattr(self.struct, name, ctypes.cast(getattr(self, name).ctypes.data, kind))

    def fill(
        self, tokens: I32, positions: I32, sequences: I32, outputs: npt.NDArray[np.generic]
    ) -> ctypes.Structure:
        count = len(tokens)
        self.token[:count] = tokens
        self.pos[:count] = positions
        self.ids[:count] = sequences
        self.logits[:count] = outputs
        self.struct.n_tokens = count
        return self.struct
