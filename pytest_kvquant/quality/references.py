"""What each cell is compared with: ``f16/f16``, or the same pair, of this build or of another.

Logits come from the store; the side measurements (decode path, greedy text, noise floor) are made
once per run. Both belong to one pair on one build.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from pytest_kvquant.errors import CellError, CellWithoutReference
from pytest_kvquant.inputs.logits_file import LogitsFile
from pytest_kvquant.inputs.reference_store import Reference, Usage
from pytest_kvquant.inputs.store_folder import StoreError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality import paths
from pytest_kvquant.quality.control import Control, measure_control
from pytest_kvquant.quality.file_source import FileSource
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task


class References:
    """Measures cells on the reference build when they are first asked for, and never twice.

    Args:
        task: with the engine of the reference build.
        plan: the side measurements.
        open_store: the stored logits of a pair on that build.
        by_cell: compare each cell with the same pair instead of ``f16/f16``.
        on_chunks: told how many chunks have been computed, of how many that were missing; 0 first.
        file: the logits of ``f16/f16``, instead of the store's.
    """

    def __init__(
        self,
        task: Task,
        plan: paths.PathsPlan,
        open_store: Callable[[Pair], Reference],
        on_chunks: Callable[[int, int], None],
        *,
        by_cell: bool,
        file: LogitsFile | None = None,
    ) -> None:
        self._task, self._plan, self._by_cell = task, plan, by_cell
        self._open_store, self._on_chunks = open_store, on_chunks
        self._sources: dict[Pair, ReferenceSource] = {}
        if file is not None:
            self._sources[REFERENCE] = FileSource(task, file)
        self._controls: dict[Pair, Control | CellError] = {}

    def pair(self, cell: Pair) -> Pair:
        """The pair that a cell is compared with."""
        return cell if self._by_cell else REFERENCE

    def source(self, cell: Pair) -> ReferenceSource:
        """The logits that a cell is compared with.

        Raises:
            StoreError: they cannot be stored.
        """
        pair = self.pair(cell)
        if pair not in self._sources:
            store = self._open_store(pair)
            self._sources[pair] = ReferenceSource(self._task, store, self._on_chunks, pair)
        return self._sources[pair]

    def control(self, cell: Pair) -> Control:
        """The side measurements that a cell is compared with.

        Raises:
            CellError: they cannot be made; tried once, told every time.
        """
        pair = self.pair(cell)
        if pair not in self._controls:
            try:
                found = measure_control(self._task, self._plan, self.source(cell), pair)
                self._controls[pair] = found
            except CellError as error:
                self._controls[pair] = copy.copy(error)  # without the frames that raised it
            except StoreError as error:
                self._controls[pair] = CellWithoutReference(str(error))
        known = self._controls[pair]
        if isinstance(known, CellError):
            raise copy.copy(known)
        return known

    def has_control(self, cell: Pair) -> bool:
        """Whether the side measurements of a cell's reference were made or tried."""
        return self.pair(cell) in self._controls

    def known(self) -> list[Control]:
        """The controls that were measured."""
        return [one for one in self._controls.values() if isinstance(one, Control)]

    def known_of(self, cell: Pair) -> Control | None:
        """The control that a cell is compared with, if it was measured."""
        found = self._controls.get(self.pair(cell))
        return found if isinstance(found, Control) else None

    def usage(self) -> Usage:
        """What was done for all logits, in chunks."""
        used = [source.usage for source in self._sources.values()]
        return Usage(
            computed=sum(one.computed for one in used),
            reused=sum(one.reused for one in used),
            damaged=sum(one.damaged for one in used),
        )

    @property
    def decode_seconds(self) -> float:
        """Time that workers spent inside ``llama_decode`` for stored logits."""
        return sum(source.decode_seconds for source in self._sources.values())
