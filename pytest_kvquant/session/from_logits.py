"""A run whose reference and tokens come from a file of llama-perplexity.

The file's rounding and clamping bias every KL; how much, ``f16/f16`` shows, which is then not
expected to be identical.
"""

from __future__ import annotations

import hashlib

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.inputs.corpus import Corpus
from pytest_kvquant.inputs.logits_file import LogitsFile
from pytest_kvquant.session.texts import TextOfRun, open_files


def words_of(settings: Settings) -> tuple[LogitsFile | None, list[Corpus | str]]:
    """Where the tokens of a run come from: a file of logits, if one was named, or its texts.

    Raises:
        RunRefused: what was named cannot be used.
    """
    file = _open(settings)
    return file, [corpus_of(file)] if file is not None else open_files(settings.corpus)


def tokens_in(
    file: LogitsFile | None, texts: list[TextOfRun], vocabulary: int, model: str
) -> list[TextOfRun]:
    """The texts of a run; where a file of logits was named, its tokens.

    Raises:
        RunRefused: the file is of another vocabulary.
    """
    if file is None:
        return texts
    require_vocabulary(file, vocabulary, model)
    return [texts[0]._replace(tokens=file.tokens.reshape(-1))]


def _open(settings: Settings) -> LogitsFile | None:
    """The file, if one was named.

    Raises:
        LogitsFileError: it is none.
        SettingsError: its chunks are of another length.
    """
    if settings.reference_logits is None:
        return None
    file = LogitsFile(settings.reference_logits)
    if file.ctx != settings.ctx:
        raise SettingsError(
            f"--kv-reference-logits {file.path} has chunks of {file.ctx} tokens: "
            f"run with --kv-ctx {file.ctx}."
        )
    return file


def corpus_of(file: LogitsFile) -> Corpus:
    """The tokens of the file as a corpus; its text is not known."""
    fingerprint = hashlib.sha256(file.tokens.tobytes()).hexdigest()[:16]
    return Corpus(file.path, file.path.stem, b" ", fingerprint)


def require_vocabulary(file: LogitsFile, vocabulary: int, model: str) -> None:
    """See that the file is of a model with this vocabulary.

    Raises:
        SettingsError: it is not.
    """
    if file.vocabulary != vocabulary:
        raise SettingsError(
            f"--kv-reference-logits {file.path} has logits of {file.vocabulary} tokens, and the "
            f"vocabulary of {model} has {vocabulary}: it is of another model."
        )
