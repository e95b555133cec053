"""The commands on result files: ``kvquant compare``, ``merge``, ``history``, ``llama-bench`` and
``schema``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.cli.files import say, write
from pytest_kvquant.errors import ResultError
from pytest_kvquant.machine.escape import one_line, paragraph

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

METRICS = ("kl", "top1", "ppl_delta", "tg_ratio", "memory", "tg", "pp")

COMPARE_CODES = """\
exit code: 0 no cell got worse; 1 a cell got worse or vanished: it passed and does not any more, or
its KL, its perplexity or its top-1 agreement moved away from f16 by more than tolerance and chance,
or its KL fell to the noise floor, as if quantization were off; 2 conditions differ (machine,
batches, threads, variables; --across allows it), or the files cannot be read or compared: each
condition that differs is named."""


def add(commands: Commands) -> None:
    """Add the commands to those of ``kvquant``."""
    _add_compare(commands, "compare", "compare two results on the same tokens")
    _add_compare(commands, "diff", "the same; --html writes both side by side")

    merge = commands.add_parser(
        "merge",
        help="put results of shards or machines together",
        epilog="exit code: 0 no cell fails; 1 a cell fails; 2 the files cannot be merged",
    )
    merge.add_argument("results", type=Path, nargs="+", help="results from --kv-json")
    merge.add_argument(
        "-o", "--out", type=Path, metavar="PATH", default=Path("-"), help="file (default: print)"
    )
    merge.set_defaults(run=_merge)

    history = commands.add_parser(
        "history",
        help="trend over results, baselines in git, or an artifacts folder",
        description="Results (*.json that --kv-json wrote), what kvquant import made of other "
        "tools' files, and zips of either (artifacts as a CI hands them out), in a folder and its "
        "sub-folders; with --git the baselines under a folder, commit by commit.",
    )
    history.add_argument("folder", type=Path, help="folder with results or baselines")
    history.add_argument("--git", action="store_true", help="baselines there, by commit")
    history.add_argument("--metric", choices=METRICS, default="kl", help="figure (default: kl)")
    history.add_argument("--html", type=Path, metavar="PATH", help="write a page with plots")
    history.set_defaults(run=_history)

    llama_bench = commands.add_parser(
        "llama-bench", help="print the speeds of a result as llama-bench -o json does"
    )
    llama_bench.add_argument("result", type=Path, help="result from --kv-json")
    llama_bench.set_defaults(run=_llama_bench)

    schema = commands.add_parser("schema", help="print the JSON schema of a result")
    schema.set_defaults(run=_schema)


def _add_compare(commands: Commands, name: str, what: str) -> None:
    compare = commands.add_parser(
        name,
        help=what,
        epilog=COMPARE_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("before", type=Path, help="result that was accepted, from --kv-json")
    compare.add_argument("after", type=Path, help="result to judge")
    compare.add_argument("--markdown", action="store_true", help="print markdown, not a table")
    compare.add_argument(
        "--across", action="store_true", help="judge although machine, batches or variables differ"
    )
    compare.add_argument("--html", type=Path, metavar="PATH", help="write both side by side")
    compare.set_defaults(run=_compare)


def _compare(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.compare import as_markdown, as_text, compare
    from pytest_kvquant.results.file import read

    before, after = read(parsed.before), read(parsed.after)
    found = compare(before, after)
    if parsed.html is not None:
        from pytest_kvquant.report.diff import render

        write(parsed.html, render(found, before, after).encode())
    say(as_markdown(found) if parsed.markdown else as_text(found))
    if found.conditions and not parsed.across:
        differing = "; ".join(found.conditions)
        print(
            f"kvquant {parsed.command}: conditions differ ({differing}): nothing is judged. "
            "--across judges all the same.",
            file=sys.stderr,
        )
        return 2
    return 1 if found.worse else 0


def _merge(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import view
    from pytest_kvquant.results.file import encode, read
    from pytest_kvquant.session.merge import merge, require_whole

    _refuse_inputs(parsed.out, parsed.results)
    results = [(str(path), read(path)) for path in parsed.results]
    require_whole(results)
    merged = merge(results)
    write(parsed.out, encode(merged))
    print(one_line(f"kvquant merge: {view.headline(merged)}"), file=sys.stderr)
    return 1 if view.run_tone(merged) == "bad" else 0


def _history(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import history

    if parsed.git:
        from pytest_kvquant.cli.git_history import points_of_git

        points, skipped = points_of_git(parsed.folder)
    else:
        points, skipped = history.load(parsed.folder)
    for line in skipped:
        print(one_line(f"kvquant history: {line}"), file=sys.stderr)
    found = history.series(points)
    if parsed.html is not None:
        _refuse_inputs(parsed.html, parsed.folder.rglob("*.json"))
        write(parsed.html, history.render(found).encode())
    say(paragraph(history.as_text(found, parsed.metric)))
    return 0


def _llama_bench(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.llama_bench import as_llama_bench
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if not any(cell.tests for cell in result.speed):
        raise ResultError(f"{parsed.result} holds no speeds; run pytest with --kv-speed on.")
    say(as_llama_bench(result.speed))
    return 0


def _schema(_: argparse.Namespace) -> int:
    from pytest_kvquant.results.schema import schema_text

    say(schema_text())
    return 0


def _refuse_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """A file that a command reads is not written over by it.

    Raises:
        ResultError: it would be.
    """
    place = os.path.realpath(out)
    if str(out) != "-" and any(os.path.realpath(path) == place for path in inputs):
        raise ResultError(f"{out} is one of the files that are read; write to another one.")
