"""Renders conversations through a chat template. Run as a program of its own, never imported.

A template comes with a model file: it is foreign code. Jinja's immutable sandbox keeps it from
Python, limits of time and memory keep it from the machine, and this process has nothing of the
parent's environment. Reads a request as JSON from standard input, writes texts as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

SECONDS = 20
"""Processor time."""
MEMORY = 1 << 30
"""Bytes of address space; where the system keeps such a limit."""
LONGEST = 1 << 20
"""Characters that one conversation may become."""


class CompiledTemplate(Protocol):
    """What is used of a template of Jinja's, which need not be installed."""

    def generate(self, **values: object) -> Iterator[str]:
        """The text, piece by piece."""


class TemplateRefused(Exception):
    """The template itself says no, by ``raise_exception``."""


def limit() -> None:
    """Keep this process to its time and memory."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with suppress(ValueError, OSError):  # macOS
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def compiled(template: str) -> CompiledTemplate:
    """The template, in the sandbox, with what transformers offers to it."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise TemplateRefused(message)

    def to_json(value: object, indent: int | None = None, **_: object) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda _format: "26 July 2026"
    return environment.from_string(template)


def rendered(template: CompiledTemplate, values: dict[str, object]) -> str:
    """One conversation; stops a template that writes without end."""
    parts: list[str] = []
    length = 0
    for part in template.generate(**values):
        length += len(part)
        if length > LONGEST:
            raise ValueError(f"it writes more than {LONGEST:,} characters")
        parts.append(part)
    return "".join(parts)


def main() -> None:
    """Answer one request; a failure is an answer too."""
    request = json.load(sys.stdin)
    limit()
    try:
        template = compiled(request["template"])
        texts = [rendered(template, {**request["always"], **one}) for one in request["values"]]
        answer: dict[str, object] = {"texts": texts}
    except Exception as error:  # whatever foreign code raises
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
