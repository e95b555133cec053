"""Pages of the documentation that are made from the code: gates, keys, commands, modules."""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.document import as_page
from pytest_kvquant.cli.main import parser
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.schema import descriptions, records

PACKAGE = Path(__file__).parents[1] / "pytest_kvquant"

PUBLIC = (
    "pytest_kvquant.fixtures",
    "pytest_kvquant.checks.declaration",
    "pytest_kvquant.checks.subject",
    "pytest_kvquant.outcomes.quality",
    "pytest_kvquant.results.file",
)
"""Modules that others build on."""


def write(folder: Path) -> None:
    """Write all of them, where their text has changed."""
    pages = {
        "checks.md": as_page(registry.declared()),
        "result.md": keys(),
        "commands.md": commands(),
        "modules.md": modules(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def keys() -> str:
    """Every key of a result: what it is, in which unit."""
    lines = [
        "# The keys of a result",
        "",
        "`--kv-json` writes them; the schema is",
        "`docs/result.schema.json`.",
    ]
    for record in records(Result):
        first = inspect.getdoc(record) or ""
        lines += [
            "",
            f"## {record.__name__}",
            "",
            " ".join(first.split()),
            "",
            "| key | what |",
            "| --- | --- |",
        ]
        lines += [
            f"| `{name}` | {text.replace('|', chr(92) + '|')} |"
            for name, text in descriptions(record).items()
        ]
    return "\n".join(lines) + "\n"


def command_parsers() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of each command of ``kvquant``."""
    (choices,) = (
        action.choices
        for action in parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return choices


def commands() -> str:
    """Every command of ``kvquant``, as its ``--help`` shows it."""
    lines = [
        "# Commands",
        "",
        "Each stands in a file of `cli/`; `kvquant NAME --help` says the same.",
    ]
    for name, one in sorted(command_parsers().items()):
        one.formatter_class = functools.partial(argparse.HelpFormatter, width=90)
        lines += ["", f"## kvquant {name}", "", "```text", one.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def modules() -> str:
    """The public modules, from their docstrings, and one line for every class of the package."""
    lines = ["# Modules", ""]
    for name in PUBLIC:
        lines += [
            f"## {name}",
            "",
            "```{eval-rst}",
            f".. automodule:: {name}",
            "   :members:",
            "   :noindex:",
            "```",
            "",
        ]
    lines += ["## All classes", "", "| class | module | what |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | `{module}` | {what} |" for name, module, what in classes()]
    return "\n".join(lines) + "\n"


def classes() -> Iterator[tuple[str, str, str]]:
    """Every public class of the package: its name, its module, the first line of its docstring."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                text = (ast.get_docstring(node) or "").partition("\n")[0].replace("|", "\\|")
                yield node.name, module, text
