"""What a check looks at: one cell, as far as it has been measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.matrix import Pair
from pytest_kvquant.quality.effective_types import Explanation
from pytest_kvquant.results.cell import Cell, NoiseFloor
from pytest_kvquant.results.kernels import Examination
from pytest_kvquant.results.memory import SteadyMemory


class Subject(NamedTuple):
    """A cell and its surroundings; a part that is not measured yet is empty."""

    pair: Pair
    cell: Cell
    """The record so far."""
    budgets: Budgets
    floor: NoiseFloor | None = None
    """What f16 shows against itself."""
    quantized: bool = True
    """Whether one of the types has blocks of more than one value."""
    same_pair: bool = False
    """Whether it is compared with the same pair of another build."""
    log: str = ""
    """The library's log, as far as it is kept."""
    explanation: Explanation | None = None
    """How the census differs from what was asked for."""
    effective: str = ""
    """The pair that the cache holds; ``mixed`` where layers differ; empty where not known."""
    expected: str | None = None
    """What the configuration says that it is substituted by."""
    gpus: tuple[str, ...] = ()
    gpu_layers: int = -1
    """Layers on them that were asked for; -1: all."""
    kv_offload: bool = True
    """Whether the cache goes to the device that computes; llama.cpp's ``--no-kv-offload``."""
    off_device: bool = False
    """Whether ``[expect]`` says that its attention runs on the CPU."""
    shapes: Mapping[str, float] = {}
    """Mean KL between batch shapes of the cell, by shape."""
    reference_memory: SteadyMemory | None = None
    """What decodes and contexts of f16 leave behind; ``None``: not known."""
    reference_kernels: Examination | None = None
    """What was found about the kernels of f16."""
    declared: frozenset[str] = frozenset()
    """Checks and operations that ``[expect]`` declares to fail here: ``attention``,
    ``operations.shift_head``."""
    kl_owned: bool = True
    """Whether the budget for mean KL is the owner's, and has to be measurable."""
    kl_packaged: bool = False
    """Whether it is the embedded model's own, which nobody chose for this batch."""
    kl_scale: float | None = None
    """Mean KL, nats, of which the cell's batch shapes may differ by a share; ``None``: its
    budget."""
    compression_floor: float | None = None
    """Least bytes per token of f16/f16 over those of the pair; ``None``: by the geometry."""
    others: tuple[Cell, ...] = ()
    """All cells of the run, this one included."""

    @property
    def declared_scenarios(self) -> set[str]:
        """Names of scenarios among what is declared."""
        return {name.partition(".")[2] for name in self.declared if "." in name}

    @property
    def all_on_gpu(self) -> bool:
        """Whether a device other than the CPU was asked to compute all layers, cache included."""
        return bool(self.gpus) and self.gpu_layers < 0 and self.kv_offload
