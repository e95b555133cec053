"""Corpora that go by a name: made on the spot, for this model and this size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.inputs import chat_template, conversation
from pytest_kvquant.inputs.code_corpus import standard_library
from pytest_kvquant.inputs.corpus import Corpus

PROSE, CODE, CHAT, TOOLS, SELF = "prose", "code", "chat", "tools", "self"
NAMES = (PROSE, CODE, CHAT, TOOLS, SELF)
"""``prose`` is the embedded text; ``self`` is written by the model and has no text of its own."""


class Speaker(NamedTuple):
    """How a model is spoken to."""

    template: str | None
    """Its chat template in Jinja; ``None``: it brings none."""
    bos: str = ""
    eos: str = ""


def made(name: str, *, size: int, seed: int, speaker: Speaker) -> Corpus:
    """``code``, ``chat`` or ``tools``.

    Args:
        size: bytes of text that are needed.
        seed: of the generator of conversations.

    Raises:
        CorpusError: what it is made from is not there.
    """
    if name == CODE:
        title, text = standard_library(size)
        return _corpus(name, title, text)
    generate = conversation.chats if name == CHAT else conversation.tool_uses
    # BOS is put at the start of every chunk, and not into the text.
    texts, remark = chat_template.write(
        generate(seed, size), speaker.template, bos="", eos=speaker.eos
    )
    return _corpus(name, name, "".join(texts))._replace(special=True, remark=remark)


def check_words(words: tuple[str, ...]) -> None:
    """See that no corpus is asked for twice: a row each, told apart by name.

    Raises:
        SettingsError: one is.
    """
    names = [word if word in NAMES else Path(word).stem for word in words]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"--kv-corpus names '{twice}' twice; each corpus is a row by its name.")


def _corpus(name: str, title: str, text: str) -> Corpus:
    data = text.encode("utf-8", errors="replace")
    return Corpus(Path(name), title, data, hashlib.sha256(data).hexdigest()[:16])
