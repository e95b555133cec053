"""The texts of a run, tokenized and cut by a worker that has loaded the model."""

from __future__ import annotations

from collections.abc import Callable

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.messages.model import ModelLoaded
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CorpusError
from pytest_kvquant.inputs.corpus import Corpus
from pytest_kvquant.inputs.corpus_names import SELF
from pytest_kvquant.inputs.logits_file import LogitsFile
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.machine.hardware import default_threads
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.session.from_logits import tokens_in
from pytest_kvquant.session.task_plan import plan_rules, plan_shape, plan_text
from pytest_kvquant.session.texts import TextOfRun, TextReader, TextTask, disturbed


class TextsOfRun:
    """The text that cells are measured on, and further ones.

    Args:
        loaded: what the worker says of the model.
        words: corpora that were read, or names of those to be made.
        store: where what f16 wrote is kept; opened when it is first needed.
        note: told what a person should read.
    """

    def __init__(
        self,
        loaded: ModelLoaded,
        words: list[Corpus | str],
        settings: Settings,
        engine: Engine,
        model: Model,
        store: Callable[[], ReferenceStore],
        note: Callable[[str], None],
    ) -> None:
        self._loaded, self._words, self._settings = loaded, words, settings
        self._engine, self._model, self._note = engine, model, note
        self.vocabulary = loaded.vocabulary
        self._shape = plan_shape(settings, self.vocabulary, default_threads())
        trained = model.context_trained
        if trained and settings.ctx > trained:
            note(
                f"--kv-ctx {settings.ctx} exceeds the {trained} tokens that {model.name} "
                "was trained for: expect a large perplexity in every cell"
            )
        cap = plan_rules(settings).cap
        self._reader = TextReader(loaded, self._shape, cap, settings, model.fingerprint, store)

    def read(self, worker: Worker, logits: LogitsFile | None, *, briefly: bool = False) -> None:
        """Read and cut all but what f16 writes.

        Args:
            logits: a file whose tokens take the place of all texts, if there is one.
            briefly: nothing will be measured: as much of each text as shows that it is enough.

        Raises:
            RunRefused: one of them cannot be used.
        """
        try:
            self._read_files(worker, logits, briefly=briefly and logits is None)
        except CorpusError:
            if not briefly:
                raise
            self._read_files(worker, logits, briefly=False)  # all of it may be enough
        settings, main = self._settings, self.main
        if settings.robustness or settings.profile == "nightly":
            self.further += disturbed(worker, main.task, main.record, self.bos, settings.seed)

    def _read_files(self, worker: Worker, logits: LogitsFile | None, *, briefly: bool) -> None:
        words = [word for word in self._words if word != SELF]
        texts = [self._reader.read(worker, word, briefly=briefly) for word in words]
        texts = tokens_in(logits, texts, self.vocabulary, self._model.name)
        self.corpus, self.tokens = texts[0]
        (self.main, *self.further) = [self._cut(text) for text in texts]

    @property
    def writes(self) -> bool:
        """Whether f16 is to write a text."""
        return SELF in self._words

    def write(self, worker: Worker) -> None:
        """Let f16 write a further text.

        Raises:
            CorpusError: it cannot.
        """
        self.further.append(self._cut(self._reader.write(worker)))

    @property
    def bos(self) -> int | None:
        """The token that every sequence starts with, if there is one."""
        return self._loaded.bos

    @property
    def hashes(self) -> str:
        """Of the tokens of all texts."""
        return " ".join(one.record.tokens_hash for one in (self.main, *self.further))

    main: TextTask
    further: list[TextTask]
    corpus: Corpus
    tokens: I32
    """Of the whole of the run's own text, shape ``(n,)``."""

    def _cut(self, text: TextOfRun) -> TextTask:
        """A text cut into the chunks that cells are measured on."""
        if remark := text.corpus.remark:
            self._note(f"corpus {text.corpus.name}: {remark}")
        return plan_text(
            text,
            self._settings,
            engine=self._engine,
            model=self._model.path,
            shape=self._shape,
            vocabulary=self.vocabulary,
            bos=self.bos,
        )
