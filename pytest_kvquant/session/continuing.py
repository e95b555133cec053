"""A run that goes on from an interrupted one, and leaves what it finishes for the next."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pytest_kvquant.results.result import Result
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.depends import command_of, depends, file_hash
from pytest_kvquant.session.finished import Finished
from pytest_kvquant.session.journal import Journal
from pytest_kvquant.session.prepared import Note, Prepared


class Continuing:
    """Holds the journal from when it is known what is asked for until the run ends.

    Args:
        started: of this sitting, UTC, ISO 8601.
        note: told what is taken over, or why nothing is.
    """

    def __init__(self, ready: Prepared, account: RunAccount, started: str, note: Note) -> None:
        self._ready, self._account = ready, account
        self._started, self._note = started, note
        self._journal: Journal | None = None
        self._process = ""
        self.finished = Finished(None, {}, started)

    def begin(self, process: str) -> None:
        """Open the journal: finished parts are kept from here.

        Args:
            process: which of pytest-xdist's this is; the one that controls them holds the journal.
        """
        ready, settings = self._ready, self._ready.settings
        if self._journal is None:
            self._journal = Journal(
                ready.store.root / "journal",
                command_of(settings),
                depends(
                    ready.model,
                    ready.texts.corpus,
                    ready.texts.hashes,
                    ready.library,
                    ready.reference_library,
                    ready.environment,
                    settings=settings,
                    setup=ready.setup,
                ),
                started=self._started,
                fresh=settings.fresh,
                shared=bool(process),
                tell=self._note,
            )
        key = {
            "cells": self._account.cells_in_run,
            "threads": ready.task.shape.threads,
            "device": ready.library.chip,
            "speed baseline": file_hash(settings.speed_baseline),
        }
        self.finished = Finished(self._journal, key, self._started)
        self._process = process

    def leave(self, result: Callable[[], Result]) -> None:
        """A process of pytest-xdist that dies, or is never heard, leaves what it has."""
        if self._process and self._journal is not None:
            self._journal.keep_result(self._process, result())

    def left_behind(self, heard: Collection[str]) -> list[tuple[str, Result]]:
        """Results so far of pytest-xdist's processes that have not reported, by name."""
        return [] if self._journal is None else self._journal.results(heard)

    def end(self) -> None:
        """Let the journal go: of a run that is whole nothing has to be taken over."""
        self.finished.end(whole=self._account.ledger.whole)
