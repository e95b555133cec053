"""Which of the machine's GPUs a worker may see: those in use, and no other.

A library looks at every device that it sees: CUDA aborts where a device that nobody asked for has
no memory left for it. The driver's own variables hide devices, and number those that are left from
0 again; what is told by a worker and to it is put into the user's numbers here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pytest_kvquant.machine.devices import parse

VARIABLES: Final[Mapping[str, str]] = {
    "CUDA": "CUDA_VISIBLE_DEVICES",
    "ROCm": "HIP_VISIBLE_DEVICES",
    "Vulkan": "GGML_VK_VISIBLE_DEVICES",
}
"""By what ggml calls the devices of a backend before their number."""

NONE: Final[Mapping[str, str]] = {"CUDA": "-1", "ROCm": "-1", "Vulkan": ""}
"""What hides all of a kind. HIP takes CUDA's variable where its own is empty."""

OWN_NUMBERS: Final = frozenset({"Vulkan"})
"""Backends that number their devices otherwise once the variable is set: the same GPU under a
second driver, and CPUs, count then. Only who sets the variable knows which numbers are meant."""

_NUMBERED = re.compile(rf"({'|'.join(VARIABLES)})(\d+)")
_IN_TEXT = re.compile(rf"(?<![\w/.-]){_NUMBERED.pattern}(?!\w|[/.-]\w)")
"""A device's name in a text, and not a part of a path."""


class Visible(NamedTuple):
    """What a worker sees of the machine's devices."""

    variables: Mapping[str, str] = {}
    """What it starts with; empty: all is visible."""
    names: Mapping[str, str] = {}
    """The user's name of each device by the worker's, where they differ."""

    def told(self, value: object) -> object:
        """Plain data from the worker, devices named as the user does; also names of keys."""
        if not self.names:
            return value
        if isinstance(value, str):
            return self._outward(value)
        if isinstance(value, dict):
            return {self._outward(name): self.told(one) for name, one in value.items()}
        return [self.told(one) for one in value] if isinstance(value, list | tuple) else value

    def in_fields(self, fields: dict[str, object]) -> dict[str, object]:
        """The same for the fields of a message, whose own names stay."""
        return {name: self.told(one) for name, one in fields.items()} if self.names else fields

    def asked(self, name: str | None) -> str | None:
        """The worker's name of a device."""
        inward = {outer: inner for inner, outer in self.names.items()}
        return name if name is None else inward.get(name, name)

    def setup(self, setup: Mapping[str, object]) -> dict[str, object]:
        """Options of llama.cpp with the worker's names of devices: ``-ot`` has such names."""
        found = dict(setup)
        given = found.get("override-tensor")
        if self.names and isinstance(given, list):
            words = [str(word).rpartition("=") for word in given]
            found["override-tensor"] = [
                f"{pattern}{sign}{self.asked(name)}" for pattern, sign, name in words
            ]
        return found

    def _outward(self, text: str) -> str:
        return _IN_TEXT.sub(lambda found: self.names.get(found[0], found[0]), text)


ALL: Final = Visible()


def only(words: Sequence[str], variables: Mapping[str, str]) -> Visible:
    """Make the devices that ``--kv-devices`` names visible and no other.

    Args:
        words: none: llama.cpp uses all that it sees.
        variables: the worker's environment; where it narrows what is visible already, the user's
            numbers count what it left.
    """
    if not words:
        return ALL
    variables_set: dict[str, str] = {}
    names: dict[str, str] = {}
    for kind, variable in VARIABLES.items():
        numbers = _numbers(kind, words)
        if variable in variables:
            # what is not there stays out, and so nobody takes its place
            parts = [part.strip() for part in variables[variable].split(",")]
            chosen = {at: parts[at] for at in numbers if at < len(parts)}
        elif kind in OWN_NUMBERS and numbers:
            continue
        else:
            chosen = {at: str(at) for at in numbers}
        variables_set[variable] = ",".join(chosen.values()) or NONE[kind]
        names |= {
            f"{kind}{inner}": f"{kind}{outer}"
            for inner, outer in enumerate(chosen)
            if inner != outer
        }
    return Visible(variables_set, names)


def _numbers(kind: str, words: Sequence[str]) -> list[int]:
    """The numbers that are asked for of a kind of devices, in their order."""
    found = [_NUMBERED.fullmatch(parse(word).name) for word in words]
    return list(dict.fromkeys(int(one[2]) for one in found if one and one[1] == kind))
