"""How time and the parent's memory grow: with chunks, pairs, vocabulary, depth. By hand.

    python bench/growth.py [--rows chunks,pairs,vocabulary,depth] [--deepest 131072]

Quality of the prefill path on the CPU, on the embedded model and on models of one layer with random
weights. docs/scale.md has the table as it was measured.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from support.parent_memory import measure  # noqa: E402
from support.tinygguf import Tiny, write  # noqa: E402
from table import WIDE  # noqa: E402

BARE = (
    "--kv-speed", "off", "--kv-decode", "0", "--kv-trajectory", "0", "--kv-probe", "off",
    "--kv-coverage", "off", "--kv-recall", "0", "--kv-healthy", "off", "--kv-order", "sequential",
    "--kv-config", "wide.toml",
)  # fmt: skip
TYPES = ("f16", "q8_0", "q4_0", "q5_1", "q5_0", "q4_1", "bf16", "iq4_nl")
SCORED = 64
DEPTHS = (512, 2048, 8192, 32_768, 131_072)


class Step(NamedTuple):
    """A run of a row: what is varied, what grows with it, and the options."""

    at: int
    units: float
    options: tuple[str, ...]


def chunks(_: Path, __: int) -> Iterator[Step]:
    """Chunks, three pairs: thousands of scored tokens of a pair."""
    pairs = "q8_0/q8_0,q4_0/q4_0"
    for count in (1, 4, 16, 64):
        options = ("--kv-ctx", "256", "--kv-chunks", str(count), "--kv-pairs", pairs)
        yield Step(count, 3 * 127 * count / 1000, options)


def pairs(_: Path, __: int) -> Iterator[Step]:
    """Pairs, four chunks: pairs."""
    for count in (2, 4, 8):
        options = ("--kv-ctx", "256", "--kv-chunks", "4", "--kv-types", ",".join(TYPES[:count]))
        yield Step(count**2, count**2, options)


def vocabulary(folder: Path, _: int) -> Iterator[Step]:
    """Entries of the vocabulary, f16 and a pair, four chunks: thousands of entries."""
    for size in (32_768, 131_072, 262_144):
        model = tiny(folder, size, 512)
        options = (*model, "--kv-ctx", "512", "--kv-chunks", "4", "--kv-pairs", "q8_0/q8_0")
        yield Step(size, size / 1000, options)


def depth(folder: Path, deepest: int) -> Iterator[Step]:
    """Tokens before those that are scored, f16 and a pair, one chunk: thousands of tokens."""
    for tokens in (one for one in DEPTHS if one <= deepest):
        options = (
            *tiny(folder, 512, tokens), "--kv-ctx", str(tokens), "--kv-scored", str(SCORED),
            "--kv-chunks", "1", "--kv-pairs", "q8_0/q8_0",
        )  # fmt: skip
        yield Step(tokens, tokens / 1000, options)


ROWS: dict[str, Callable[[Path, int], Iterable[Step]]] = {
    "chunks": chunks, "pairs": pairs, "vocabulary": vocabulary, "depth": depth,
}  # fmt: skip


def tiny(folder: Path, size: int, context: int) -> tuple[str, ...]:
    """Options for a model of one layer and a text that is long enough for it."""
    model, corpus = folder / "model.gguf", folder / "corpus.txt"
    shape = Tiny(n_vocab=size, n_ctx=context, n_embd=32, head_dim=64, n_layer=1, n_head=1,
                 n_head_kv=1)  # fmt: skip
    write(model, shape)
    length = max(8192, 2 * context)
    corpus.write_bytes(bytes(32 + (7 * at * at + at // 3) % 90 for at in range(length)))
    return "--kv-model", str(model), "--kv-corpus", str(corpus)


def main() -> None:
    """Print a table for each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--deepest", type=int, default=32_768)
    given = parser.parse_args()
    print("| what | | CPU seconds | more for each unit more | seconds | parent, MB |")
    print("|---|--:|--:|--:|--:|--:|")
    for row in given.rows.split(","):
        unit = (ROWS[row].__doc__ or "").rpartition(": ")[2].rstrip(".")
        before: tuple[float, float] | None = None
        with tempfile.TemporaryDirectory(prefix="kvquant-growth-") as name:
            for step in ROWS[row](Path(name), given.deepest):
                folder = Path(name) / "run"
                (Path(name) / "wide.toml").write_text(WIDE, encoding="utf-8")
                options = ("../wide.toml" if one == "wide.toml" else one for one in BARE)
                found = measure(folder, *options, *step.options)
                shutil.rmtree(folder)
                each = (found.cpu - before[1]) / (step.units - before[0]) if before else None
                told = "" if each is None else f"{1000 * each:.0f} ms: {unit}"
                print(
                    f"| {row} | {step.at:,} | {found.cpu:.1f} | {told} "
                    f"| {found.result.seconds:.1f} | {found.peak / 1e6:.0f} |",
                    flush=True,
                )
                before = step.units, found.cpu


if __name__ == "__main__":
    main()
