"""Where kernels are examined: a worker that may die, and then is another one."""

from __future__ import annotations

from contextlib import ExitStack

from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.parent.workers import Workers
from pytest_kvquant.inputs.model import Model


class Workplace:
    """A worker with the model loaded; another one after a death.

    Args:
        workers: whom to hire; ``None``: a process is started.
    """

    def __init__(
        self, engine: Engine, model: Model, gpu_layers: int, workers: Workers | None
    ) -> None:
        self._engine, self._model, self._gpu_layers = engine, model, gpu_layers
        self._workers = workers
        self._hired = ExitStack()
        self._worker: Worker | None = None
        self.bos: int | None = None

    def worker(self) -> Worker:
        """The worker, hired now if there is none.

        Raises:
            CellError: it cannot be started.
        """
        if self._worker is None:
            hired = self._workers.shared() if self._workers else Worker(self._engine)
            worker = self._worker = self._hired.enter_context(hired)
            worker.library(self._engine.directory)
            loaded = worker.model(self._model.path, gpu_layers=self._gpu_layers)
            self.bos = loaded.bos
        return self._worker

    def drop(self) -> None:
        """Give up a worker that is dead or in doubt."""
        self._worker = None
        self._hired.__exit__(_Dropped, _Dropped(), None)

    def close(self) -> None:
        """Let the worker go."""
        self._worker = None
        self._hired.close()


class _Dropped(Exception):
    """Leaves a block as whoever is in doubt leaves it."""
