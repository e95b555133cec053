"""Faults that a worker can be given, in Python."""

from __future__ import annotations

FAULTS: dict[str, str] = {
    "noise": "def change_logits(logits, *_):\n"
             "    return logits + np.random.default_rng(0).normal(0, 2.0, logits.shape)\n",
    "nan": "def change_logits(logits, *_):\n    logits[-1:] = np.nan\n    return logits\n",
    "swapped": "def change_logits(logits, *_):\n    return logits[:, ::-1]\n",
    "decode": "def change_logits(logits, tokens, *_):\n"
              "    return logits * 0.5 if len(tokens) == 1 else logits\n",
    "crash": "import os\ndef change_logits(logits, *_):\n    os.abort()\n",
    "substituted": "def change_types(k, v):\n    return 'q8_0', 'q8_0'\n",
    "inactive": "def change_types(k, v):\n    return 'f16', 'f16'\n",
}  # fmt: skip
"""Faults by name: Python that every worker runs, defining ``change_logits(logits, tokens,
positions, sequences)`` or ``change_types(k, v)``. ``f16/f16`` is left alone. ``decode``
shows on the decode path alone: ``run("--kv-decode=64")``."""

PLANT = """

from pytest_kvquant.engine.child.context import Context as _Context

_open, _decode = _Context.__init__, _Context.decode


def _opened(self, model, *, type_k, type_v, **shape):
    self.planted = (type_k, type_v) != ("f16", "f16")
    if self.planted and "change_types" in globals():
        type_k, type_v = change_types(type_k, type_v)
    _open(self, model, type_k=type_k, type_v=type_v, **shape)


def _decoded(self, tokens, positions, sequences, outputs):
    logits = _decode(self, tokens, positions, sequences, outputs)
    if self.planted and "change_logits" in globals():
        logits = change_logits(logits.copy(), tokens, positions, sequences)
    return np.asarray(logits, np.float32)


_Context.__init__, _Context.decode = _opened, _decoded
"""
