"""The devices of a library that this process uses."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from pytest_kvquant.engine.options import Options, numbers, whole
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.devices import parse
from pytest_kvquant.results.library import Library

GPU_BACKENDS = r"libggml-(cuda|hip|musa|metal|vulkan|sycl|cann|opencl|webgpu)\b"
"""Files of backends that compute on a device of their own."""


def in_use(library: Library, words: Sequence[str], gpu_layers: int) -> Library:
    """A library with the devices that this process uses: all, or the first of those asked for.

    Raises:
        SettingsError: one is not there; or it is a GPU build that finds no GPU, and nobody asked
            for the CPU.
    """
    if words:
        return restrict(library, words)
    backends = [name for name in library.files if re.match(GPU_BACKENDS, name)]
    if backends and gpu_layers != 0 and not library.gpus:
        raise SettingsError(
            f"This build has {backends[0]} and finds no device for it, so that everything would be "
            "measured on the CPU. Is the driver there, and the device visible? To measure the CPU: "
            "--kv-devices CPU."
        )
    return library


def split_over(library: Library, setup: Options) -> Library:
    """The library with those of its GPUs that a model is split over.

    Without a split it lies on the main one; a device whose share is 0 has nothing of it. What
    llama.cpp will refuse stays as it is.
    """
    gpus = library.gpus
    main, shares = whole(setup, "main-gpu"), numbers(setup, "tensor-split")
    if setup.get("split-mode") == "none":
        holding = gpus[main : main + 1]
    elif any(shares):
        holding = [one for one, share in zip(gpus, shares, strict=False) if share > 0]
    else:
        holding = gpus
    if not holding:
        return library
    left = [one for one in library.devices if one in holding or not one.gpu]
    return msgspec.structs.replace(library, devices=tuple(left))


def restrict(library: Library, words: Sequence[str]) -> Library:
    """A library with the first of the devices asked for.

    Raises:
        SettingsError: the library does not have all of them, or they are not alike: cells are
            compared with the logits of one f16 reference.
    """
    have = {device.name: device for device in library.devices}
    for word in words:
        if parse(word).name not in have:
            raise SettingsError(
                f"--kv-devices {word}: this library ({library.build}) has no such device. It has: "
                f"{', '.join(have)}."
            )
    used = [have[parse(word).name] for word in words]
    if other := next((one for one in used if one.description != used[0].description), None):
        raise SettingsError(
            f"--kv-devices: {used[0].name} is '{used[0].description}' and {other.name} is "
            f"'{other.description}'. One run compares with one f16 reference: measure unlike "
            "devices in runs of their own."
        )
    return msgspec.structs.replace(library, devices=(used[0],))
