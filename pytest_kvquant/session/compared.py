"""What the cells of a run are compared with: the reference, and what it was stored under."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pytest_kvquant.inputs.reference_store import Reference
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality import paths
from pytest_kvquant.quality.control import Control
from pytest_kvquant.quality.healthy import EMULATION, WORDS, HealthyGround
from pytest_kvquant.quality.quantizers import Quantizers
from pytest_kvquant.quality.references import References
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.results.completeness import ReferenceUse
from pytest_kvquant.session.observer import Observer, phase
from pytest_kvquant.session.prepared import Prepared
from pytest_kvquant.session.reference_key import ReferenceConditions
from pytest_kvquant.session.texts import TextTask
from pytest_kvquant.session.workloads import Workloads, plan_recall


class Compared:
    """Measures f16, or a pair of another build, when a cell first needs it.

    Raises:
        StoreError: from the constructor, the reference cannot be stored.
    """

    def __init__(self, ready: Prepared, pairs: Sequence[Pair], observer: Observer) -> None:
        self._ready, self._pairs, self._observer = ready, pairs, observer
        self._identities = Identities(ready)
        settings, texts, task = ready.settings, ready.texts, ready.reference_task
        self.references = References(
            task,
            paths.plan(
                ready.task.chunks,
                decode_tokens=settings.decode,
                trajectory_tokens=settings.trajectory,
                sequences=ready.task.shape.sequences,
            ),
            lambda pair: self._identities.open(pair, texts.corpus.fingerprint),
            self._computed,
            by_cell=settings.compare_cells,
            file=ready.logits,
        )
        self.workloads = Workloads(
            task,
            plan_recall(
                texts.tokens,
                settings.recall,
                settings.ctx,
                ready.model.context_trained,
                texts.bos,
                observer.note,
            ),
            [
                one._replace(task=one.task._replace(engine=task.engine, crew=task.crew))
                for one in texts.further
            ],
            self._open_text,
        )
        self.references.source(REFERENCE)  # a store that cannot be used is told now

    @property
    def source(self) -> ReferenceSource:
        """The reference's logits."""
        return self.references.source(REFERENCE)

    def control(self, pair: Pair = REFERENCE) -> Control:
        """What the side measurements of a cell are compared with, measured once.

        Raises:
            CellError: it cannot be measured; tried once, told every time.
        """
        if self.references.has_control(pair):
            return self.references.control(pair)
        with phase(self._observer, "control", pair):
            return self.references.control(pair)

    @functools.cached_property
    def quantizers(self) -> Quantizers:
        """How the types of the measured build round; each is asked once."""
        types = self._ready.library.types
        blocks = {name: (kind.block, kind.bytes) for name, kind in types.items()}
        return Quantizers(self._ready.task, blocks, self._pairs)

    @property
    def emulation(self) -> HealthyGround | None:
        """What healthy cells are emulated with, if they are; a cell beside itself needs none."""
        ready = self._ready
        if ready.settings.compare_cells or ready.settings.healthy == "off":
            return None
        return HealthyGround(ready.task, ready.model, self._identities.open_emulated)

    def use(self) -> ReferenceUse:
        """What was done for the reference's logits, in chunks."""
        usage = self.references.usage()
        return ReferenceUse(computed=usage.computed, reused=usage.reused, damaged=usage.damaged)

    @property
    def decode_seconds(self) -> float:
        """Time that workers spent inside ``llama_decode`` for the reference."""
        controls = sum(one.decode_seconds for one in self.references.known())
        return controls + self.references.decode_seconds

    def _open_text(self, pair: Pair, text: TextTask) -> Reference:
        return self._identities.open(pair, text.record.fingerprint)

    def _computed(self, done: int, of: int) -> None:
        """So many of the missing chunks of the reference were computed; 0: it begins."""
        if not done:
            self._observer.begin("reference", None, of)
        self._observer.step(f"{done} of {of} chunks", done, of)
        if done == of:
            self._observer.end(of)


class Identities:
    """Opens the store of a run's logits under everything that they depend on."""

    def __init__(self, ready: Prepared) -> None:
        self._ready = ready

    def open(self, pair: Pair, fingerprint: str) -> Reference:
        """The stored logits of a pair, on the reference build, on a text.

        Args:
            fingerprint: of the text.
        """
        task = self._ready.task
        identity = self._identity(pair, fingerprint)
        return self._ready.store.open(identity, rows=task.shape.scored, vocabulary=task.vocabulary)

    def open_emulated(self, pair: Pair, path: str, rows: int) -> Reference:
        """The stored figures of a healthy cell of a pair, emulated on the measured build.

        Args:
            path: by which the logits come, ``prefill`` or ``decode``.
            rows: scored tokens of a chunk.
        """
        ready = self._ready
        identity = self._identity(REFERENCE, ready.texts.corpus.fingerprint) | {
            "emulated": str(pair),
            "path": path,
            "rows": rows,
            "by": ready.library.hash,
            "format": EMULATION,
        }
        return ready.store.open(identity, rows=rows, vocabulary=WORDS)

    def _identity(self, pair: Pair, fingerprint: str) -> dict[str, object]:
        ready = self._ready
        conditions = ReferenceConditions.here(
            model=ready.model.fingerprint,
            order=ready.settings.order,
            seed=ready.settings.seed,
            gpu_layers=ready.task.gpu_layers,
            shape=ready.task.shape,
            library=ready.reference_library,
            environment=ready.environment,
            setup=ready.setup,
        )
        return conditions.key(pair, fingerprint)
