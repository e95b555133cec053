"""Values of llama.cpp's options that cannot be meant, in words.

What llama.cpp would do with them is no error: a C struct takes the low half of a large number, and
a scale of zero or nothing makes every figure worthless.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Final

INT32: Final = (1 << 31) - 1
MOST_LAYERS: Final = 10_000
LONGEST: Final = 127
"""Bytes of a key or a text in ``struct llama_model_kv_override``."""


def why_not(name: str, kind: str, value: object) -> str:
    """What is wrong with a value that is of the right kind; empty where nothing is."""
    values = value if isinstance(value, list) else [value]
    complaints = [_number(name, one) for one in values if isinstance(one, float)]
    if kind == "int" and isinstance(value, int):
        least, most = _WHOLE[name]
        outside = not least <= value <= most
        complaints.append(f"it must be a whole number from {least} to {most}" if outside else "")
    if name == "tensor-split" and values and not any(values):
        complaints.append("one share has to be above zero")
    if name in _WORDS:
        complaints += [_WORDS[name](str(one)) for one in values]
    return next(filter(None, complaints), "")


def _number(name: str, value: float) -> str:
    if not math.isfinite(value) or abs(value) > _FLOAT32:
        return f"{value:g} is not a number that llama.cpp can take"
    if name in _POSITIVE and value <= 0:
        return "it must be above zero"
    return "it must not be negative" if name in _NOT_NEGATIVE and value < 0 else ""


_FLOAT32: Final = 3.4e38
_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    "main-gpu": (0, INT32), "n-cpu-moe": (0, MOST_LAYERS), "parallel": (1, INT32),
    "threads-batch": (1, INT32), "yarn-orig-ctx": (0, INT32),
}  # fmt: skip
_POSITIVE: Final = ("rope-scale",)
_NOT_NEGATIVE: Final = ("rope-freq-base", "rope-freq-scale", "tensor-split")


def _header_field(word: str) -> str:
    key, _, typed = word.partition("=")
    kind, colon, value = typed.partition(":")
    if not key or not colon or kind not in _TYPES:
        return f"{word}: write key=type:value, where type is int, float, bool or str"
    if len(key.encode()) > LONGEST:
        return f"{word}: a key has at most {LONGEST} bytes"
    return f"{word}: {_TYPES[kind][1]}" if not _TYPES[kind][0](value) else ""


def _is_whole(word: str) -> bool:
    return (
        bool(re.fullmatch(r"[+-]?\d{1,19}", word, re.ASCII)) and -(1 << 63) <= int(word) < 1 << 63
    )


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


_TYPES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "int": (_is_whole, "an int is a whole number of 64 bits"),
    "float": (_is_number, "a float is a number"),
    "bool": (lambda word: word in ("true", "false"), "a bool is true or false"),
    "str": (lambda word: len(word.encode()) <= LONGEST, f"a str has at most {LONGEST} bytes"),
}


def _tensors(word: str) -> str:
    pattern, equals, buffer = word.rpartition("=")
    if not (pattern and equals and buffer):
        return f"{word}: write pattern=buffer type, as exps=CPU"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # [[:digit:]] is llama.cpp's to read
            re.compile(pattern)
    except re.error as error:
        return f"{word}: {pattern} is no regular expression ({error})"
    return ""


def _scaled(word: str) -> str:
    path, colon, scale = word.rpartition(":")
    if not colon:
        return ""
    try:
        factor = float(scale)
    except ValueError:
        return ""  # the colon is one of the path
    if not path:
        return f"{word}: write FILE or FILE:SCALE"
    if not math.isfinite(factor) or abs(factor) > _FLOAT32:
        return f"{word}: {scale} is not a scale that llama.cpp can take"
    return ""


def _server(word: str) -> str:
    host, _, port = word.rpartition(":")
    if host and re.fullmatch(r"\d{1,5}", port, re.ASCII) and 0 < int(port) < 1 << 16:
        return ""
    return f"{word}: write HOST:PORT"


_WORDS: Final[Mapping[str, Callable[[str], str]]] = {
    "override-kv": _header_field, "override-tensor": _tensors, "lora": _scaled,
    "control-vector": _scaled, "rpc": _server,
}  # fmt: skip
