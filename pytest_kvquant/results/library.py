"""The llama.cpp build that was measured: its files, devices and cache types."""

from __future__ import annotations

from collections import Counter

import msgspec


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A backend device as the library describes it; memory in bytes."""

    name: str
    """As ggml names it."""
    description: str
    """As the library describes it."""
    gpu: bool
    """Whether it is other than the CPU."""
    free: int
    """Bytes free when asked."""
    total: int
    """Bytes in all."""
    accelerator: bool = False
    """Whether it helps the CPU on the CPU's own memory, as BLAS does."""
    unified: bool = False
    """Whether its memory is the host's."""


class CacheType(msgspec.Struct, frozen=True, kw_only=True):
    """A ggml type of the library: ``bytes`` hold ``block`` values."""

    id: int
    """Number in this library; it differs between forks."""
    block: int
    """Values of a block."""
    bytes: int
    """Bytes of a block."""
    cache: bool
    """Whether a KV cache can be of this type."""


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """The llama.cpp build that was measured."""

    path: str
    """Of libllama."""
    bindings: str
    """Version of llama-cpp-python."""
    python: str
    """Version of the worker's interpreter."""
    llama_version: str | None
    """As the library says it."""
    ggml_version: str | None
    """As the library says it."""
    ggml_commit: str | None
    """As the library says it."""
    system_info: str | None
    """llama.cpp's own line on processor features."""
    files: tuple[str, ...]
    """Names of the libraries in use."""
    hash: str
    """SHA-256 over the llama and ggml libraries in use, 16 hex digits."""
    devices: tuple[Device, ...]
    """Backend devices."""
    types: dict[str, CacheType]
    """ggml types by name."""
    backends: tuple[str, ...] = ()
    """Backends that the build has registered, whether or not they have a device."""

    @property
    def build(self) -> str:
        """A short name of the build for people."""
        commit = self.ggml_commit or "commit unknown"
        return f"{self.llama_version or self.ggml_version or 'llama.cpp'} ({commit})"

    @property
    def device(self) -> str:
        """The device that computes: the first GPU, else the CPU (no accelerator beside it)."""
        return self._computing.name

    @property
    def chip(self) -> str:
        """What computes, in the library's words: figures of equal chips are comparable.

        Several GPUs are all named, equal ones with their number: ``2 x NVIDIA H100``.
        """
        names = [one.description or one.name for one in self.gpus or [self._computing]]
        return " + ".join(
            f"{count} x {name}" if count > 1 else name for name, count in Counter(names).items()
        )

    @property
    def computing(self) -> str:
        """The names of all devices that compute."""
        return " and ".join(one.name for one in self.gpus) or self.device

    @property
    def accelerators(self) -> str:
        """Its backends as ``llama-bench`` lists them: all but the CPU's, unless there is none."""
        return ",".join(name for name in self.backends if name != "CPU") or "CPU"

    @property
    def processors(self) -> str:
        """Its devices other than GPUs, as ``llama-bench`` lists them."""
        return ", ".join(device.description for device in self.devices if not device.gpu)

    @property
    def gpus(self) -> list[Device]:
        """Its devices other than the CPU's."""
        return [device for device in self.devices if device.gpu]

    def gpus_in_use(self, gpu_layers: int) -> list[Device]:
        """Those that compute when so many layers are offloaded (-1: all)."""
        return self.gpus if gpu_layers != 0 else []

    @property
    def _computing(self) -> Device:
        plain = [device for device in self.devices if not device.accelerator]
        return (self.gpus or plain or list(self.devices))[0]
