"""Text from outside (names in a model, log lines, devices, paths) on its way into terminals and CI
logs: it stays text, and steers nothing.

Control characters become what they are called; a line that a CI system would take for a command of
ours gets a backslash; bidirectional marks, which make a line read other than it is, are named too.
"""

from __future__ import annotations

import re

_STEERS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""C0 and C1 controls, separators of lines, marks of direction and width, lone surrogates."""

_GITHUB = re.compile(r"^((?:\s|\x1b\[[0-9;]*m)*)::", re.MULTILINE)
"""A workflow command of GitHub: at the start of a line, with blanks or colours before it or not."""

_HASH_COMMAND = re.compile(r"##(?=\w*\[)")
"""``##[error]``, ``##vso[…]``, ``##teamcity[…]``: anywhere in a line."""


def one_line(text: str, most: int | None = None) -> str:
    r"""The text as one line that neither moves a cursor nor commands a CI system.

    >>> one_line("kvq\x1b[2J\r\nmini")
    'kvq\\x1b[2J\\r\\nmini'
    >>> one_line("::error::gone"), one_line("##[error]gone")
    ('\\::error::gone', '#\\#[error]gone')
    >>> one_line("abcdefgh", most=5)
    'abcd…'
    """
    shown = inert(_STEERS.sub(_named, text))
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…"


def paragraph(text: str) -> str:
    r"""The same for text of several lines: line feeds and tabs stay.

    >>> paragraph("one\n ::error::two\x07")
    'one\n \\::error::two\\x07'
    """
    lines = text.replace("\r\n", "\n").split("\n")
    kept = ["\t".join(_STEERS.sub(_named, part) for part in line.split("\t")) for line in lines]
    return inert("\n".join(kept))


def inert(text: str) -> str:
    """The text with nothing in it that a CI system would take for a command; colours stay."""
    return _HASH_COMMAND.sub(r"#\\#", _GITHUB.sub(r"\1\\::", text))


def throughout(value: object) -> object:
    """Plain data with every string in it as one line; names of keys stay."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {name: throughout(one) for name, one in value.items()}
    return [throughout(one) for one in value] if isinstance(value, list | tuple) else value


def _named(found: re.Match[str]) -> str:
    """A character as Python writes it: ``\\x1b``, ``\\u202e``."""
    letter = found.group()
    if letter in "\r\n\t":
        return {"\r": "\\r", "\n": "\\n", "\t": "\\t"}[letter]
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
