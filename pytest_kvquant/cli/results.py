"""The commands on result files: ``kvquant compare``, ``merge``, ``history``, ``llama-bench`` and
``schema``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.errors import ResultError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

METRICS = ("kl", "top1", "ppl_delta", "tg_ratio", "memory")

COMPARE_CODES = """\
exit code: 0 no cell got worse; 1 a cell got worse: it passed and does not any more, or its KL, its
perplexity or its top-1 agreement moved away from f16 by more than tolerance and chance, or its KL
fell to the noise floor, as if quantization were off; 2 the files cannot be read or compared."""


def add(commands: Commands) -> None:
    """Add the commands to those of ``kvquant``."""
    compare = commands.add_parser(
        "compare",
        help="compare two results on the same tokens",
        epilog=COMPARE_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("before", type=Path, help="result that was accepted, from --kv-json")
    compare.add_argument("after", type=Path, help="result to judge")
    compare.add_argument("--markdown", action="store_true", help="print markdown, not a table")
    compare.set_defaults(run=_compare)

    merge = commands.add_parser(
        "merge",
        help="put results of shards or machines together",
        epilog="exit code: 0 no cell fails; 1 a cell fails; 2 the files cannot be merged",
    )
    merge.add_argument("out", type=Path, help="file to write; '-' prints")
    merge.add_argument("results", type=Path, nargs="+", help="results from --kv-json")
    merge.set_defaults(run=_merge)

    history = commands.add_parser("history", help="trend over the results in a folder")
    history.add_argument("folder", type=Path, help="folder with results; sub-folders too")
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


def _compare(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.compare import as_markdown, as_text, compare
    from pytest_kvquant.results.file import read

    found = compare(read(parsed.before), read(parsed.after))
    _say(as_markdown(found) if parsed.markdown else as_text(found))
    return 1 if found.worse else 0


def _merge(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import view
    from pytest_kvquant.results.file import encode, read
    from pytest_kvquant.session.merge import merge

    merged = merge([(str(path), read(path)) for path in parsed.results])
    _write(parsed.out, encode(merged))
    print(f"kvquant merge: {view.headline(merged)}", file=sys.stderr)
    return 1 if view.run_tone(merged) == "bad" else 0


def _history(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import history

    results, skipped = history.load(parsed.folder)
    for line in skipped:
        print(f"kvquant history: {line}", file=sys.stderr)
    found = history.series(results)
    if parsed.html is not None:
        _write(parsed.html, history.render(found).encode())
    _say(history.as_text(found, parsed.metric))
    return 0


def _llama_bench(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.llama_bench import as_llama_bench
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if not any(cell.tests for cell in result.speed):
        raise ResultError(f"{parsed.result} holds no speeds; run pytest with --kv-speed on.")
    _say(as_llama_bench(result.speed))
    return 0


def _schema(_: argparse.Namespace) -> int:
    from pytest_kvquant.results.schema import schema_text

    _say(schema_text())
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text)


def _write(path: Path, data: bytes) -> None:
    from pytest_kvquant.machine.files import replace

    if str(path) == "-":
        sys.stdout.write(data.decode())
        return
    try:
        replace(path, data)
    except OSError as error:
        raise ResultError(f"{path} cannot be written: {error.strerror}.") from None
