"""llama.cpp's own options as a worker is given them: by name, each asked for by its kind.

The configuration has checked the values; what comes over the line is looked at once more, so that
no other kind of value ends in a field of a C struct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Options: TypeAlias = Mapping[str, object]
"""Name of an option to its value: what is not there keeps llama.cpp's default."""


def words(options: Options, name: str) -> list[str]:
    """A list of words; empty where the option is not set.

    >>> words({"lora": ["a.gguf:0.5"]}, "lora"), words({}, "lora")
    (['a.gguf:0.5'], [])
    """
    found = options.get(name, ())
    if not isinstance(found, list | tuple):
        raise _wrong(name, found, "a list")
    return [str(one) for one in found]


def numbers(options: Options, name: str) -> list[float]:
    """A list of numbers; empty where the option is not set."""
    return [float(word) for word in words(options, name)]


def number(options: Options, name: str, default: float = 0.0) -> float:
    """A number."""
    found = options.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _wrong(name, found, "a number")
    return found


def whole(options: Options, name: str, default: int = 0) -> int:
    """A whole number."""
    found = options.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int):
        raise _wrong(name, found, "a whole number")
    return found


def flag(options: Options, name: str, default: bool) -> bool:
    """Yes or no."""
    found = options.get(name, default)
    if not isinstance(found, bool):
        raise _wrong(name, found, "true or false")
    return found


def choice(options: Options, name: str, values: Mapping[str, int]) -> int:
    """The number that stands for a word.

    Raises:
        KeyError: it is none of the words.
    """
    return values[str(options[name])]


def _wrong(name: str, found: object, wanted: str) -> TypeError:
    return TypeError(f"{name} is {found!r}, and has to be {wanted}")
