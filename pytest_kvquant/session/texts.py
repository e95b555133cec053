"""The texts of a run: the first is its corpus, each further one a row of its own."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.data import EMBEDDED_CORPUS
from pytest_kvquant.engine.messages.model import ModelLoaded
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.errors import CellError, CorpusError, SettingsError
from pytest_kvquant.inputs import corpus_names
from pytest_kvquant.inputs.corpus import Corpus, read_corpus
from pytest_kvquant.inputs.corpus_names import SELF, Speaker
from pytest_kvquant.inputs.disturbance import DISTURBANCES
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.quality import self_written
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.conditions import CorpusRecord

BYTES_PER_TOKEN = 6
"""More than a token of English or code has, so that a text made to a size has enough of them."""
BRIEFLY = 2
"""Times that size are tokenized of a text of which it is only asked whether it is enough."""
DISTURBED_CHUNKS = 8


class TextOfRun(NamedTuple):
    """One text, tokenized."""

    corpus: Corpus
    tokens: I32
    """Shape ``(n,)``."""


class TextTask(NamedTuple):
    """A further text, cut into the chunks that cells are measured on."""

    record: CorpusRecord
    task: Task
    disturbance: str = ""
    """What was done to the run's own chunks to get it; empty: it is another text."""


class TextReader:
    """Reads or makes texts with workers that have loaded the model.

    Args:
        loaded: what the worker said of the model.
        chunks: most chunks that will be drawn.
        store: where what f16 wrote is kept; opened when it is first needed.
    """

    def __init__(
        self,
        loaded: ModelLoaded,
        shape: BatchShape,
        chunks: int,
        settings: Settings,
        fingerprint: str,
        store: Callable[[], ReferenceStore],
    ) -> None:
        self._loaded, self._shape = loaded, shape
        self._chunks, self._settings = chunks, settings
        self._fingerprint, self._store = fingerprint, store

    def read(self, worker: Worker, found: Corpus | str, *, briefly: bool = False) -> TextOfRun:
        """A text that was read from a file, or one by name other than ``self``.

        Args:
            briefly: tokenize no more of it than is likely to be enough.

        Raises:
            CorpusError: it cannot be made or tokenized.
        """
        if isinstance(found, str):
            found = corpus_names.made(
                found,
                size=BYTES_PER_TOKEN * self._shape.ctx * self._chunks,
                seed=self._settings.seed,
                speaker=Speaker(self._loaded.template, **self._loaded.texts),
            )
        if briefly:
            size = BRIEFLY * BYTES_PER_TOKEN * self._shape.ctx * self._chunks
            found = found._replace(text=found.text[:size])
        return TextOfRun(found, self._tokenized(worker, found))

    def _tokenized(self, worker: Worker, corpus: Corpus) -> I32:
        try:
            return worker.tokenize(corpus.text, special=corpus.special)
        except CellError as error:
            raise CorpusError(f"The corpus {corpus.path} cannot be tokenized: {error}") from None

    def write(self, worker: Worker) -> TextOfRun:
        """What f16 writes; once written it is kept and stays the same text for later builds.

        Args:
            worker: in which a cell may be opened.

        Raises:
            CorpusError: f16 cannot write it.
        """
        shape, seed = self._shape, self._settings.seed
        identity = {
            "written": self._fingerprint,
            "ctx": shape.ctx,
            "chunks": self._chunks,
            "seed": seed,
            "prompt": self_written.PROMPT,
            "temperatures": self_written.TEMPERATURES,
        }
        kept = self._store().open(identity, rows=1, vocabulary=1)
        tokens = kept.tokens()
        if tokens is None:
            prompts = self_written.cut_prompts(
                self._tokenized(worker, read_corpus(EMBEDDED_CORPUS)), self._chunks
            )
            try:
                worker.open(REFERENCE, shape)
                tokens = self_written.write(
                    worker,
                    prompts,
                    shape,
                    vocabulary=self._loaded.vocabulary,
                    bos=self._loaded.bos,
                    seed=seed,
                ).ravel()
            except CellError as error:
                raise CorpusError(f"The corpus 'self' cannot be written by f16: {error}") from None
            kept.keep_tokens(tokens)
        digest = hashlib.sha256(json.dumps(identity).encode() + tokens.tobytes()).hexdigest()[:16]
        return TextOfRun(Corpus(Path(SELF), SELF, tokens.tobytes(), digest), tokens)


def open_files(words: tuple[str, ...]) -> list[Corpus | str]:
    """The corpora that are files, read at once; names stay names.

    Raises:
        CorpusError: a file cannot be read.
        SettingsError: a corpus is named twice.
    """
    corpus_names.check_words(words)
    if words[:1] == (SELF,):
        raise SettingsError(
            "--kv-corpus self: what f16 writes goes beside a text, whose chunks baselines and "
            "other paths are of; for example --kv-corpus prose,self."
        )
    found: list[Corpus | str] = []
    for word in words or (str(EMBEDDED_CORPUS),):
        if word == corpus_names.PROSE:
            found.append(read_corpus(EMBEDDED_CORPUS)._replace(name=corpus_names.PROSE))
        else:
            found.append(word if word in corpus_names.NAMES else read_corpus(Path(word)))
    return found


def disturbed(
    worker: Worker, task: Task, record: CorpusRecord, bos: int | None, seed: int
) -> list[TextTask]:
    """The first chunks of a run's own text in each disturbance, as long as they were.

    Raises:
        CellError: the worker dies.
    """
    chunks = task.chunks[:DISTURBED_CHUNKS]
    texts = [worker.detokenize(chunk).decode("utf-8", errors="replace") for chunk in chunks]
    found = []
    for name, change in DISTURBANCES.items():
        rows = [
            _as_long(
                worker.tokenize(change(text, random.Random(f"{seed} {number}")).encode()), chunk
            )
            for number, (text, chunk) in enumerate(zip(texts, chunks, strict=True))
        ]
        rules = msgspec.structs.replace(task.rules, cap=len(rows), early=False)
        own = task._replace(chunks=from_start(np.stack(rows), bos), rules=rules)
        of_it = msgspec.structs.replace(
            record, name=name, chunks=record.chunks[: len(rows)], tokens_hash=own.tokens_hash
        )
        found.append(TextTask(of_it, own, disturbance=name))
    return found


def _as_long(tokens: I32, chunk: I32) -> I32:
    """The tokens cut to the chunk's length; where they are fewer, its own end follows them."""
    return np.concatenate([tokens[: len(chunk)], chunk[len(tokens) :]]).astype(np.int32)
