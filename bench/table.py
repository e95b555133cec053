"""What a verdict costs beside the shell loop that it replaces: one command, one table.

    python bench/table.py --lib BUILD/bin --model MODEL.gguf --corpus wiki.test.raw \
        [--python PYTHON] [--pairs f16/f16,q8_0/q8_0,…] [--speed-model MODEL.gguf --depths 0,8192]
        [--expect KVQUANT.toml]

``BUILD/bin`` holds libllama, llama-perplexity and llama-bench of one build. Every row is a ratio of
two things that ran one after the other on this machine; ``--rows`` chooses some of them. It is
``make bench``'s part that needs programs of a build.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.results.file import read
from pytest_kvquant.results.result import Result

PREFILL = ("--kv-speed", "off", "--kv-decode", "0", "--kv-trajectory", "0", "--kv-probe", "off",
           "--kv-coverage", "off", "--kv-recall", "0")  # fmt: skip
"""The prefill path alone."""

BARE = (*PREFILL, "--kv-healthy", "off")
"""What the loop measures: KL, perplexity and top-1, on the same chunks."""

WIDE = """[budgets."*/*"]
kl_mean = 1.0
kl_tail = 1.0
ln_ppl = 1.0
top1_flips = 1.0
"""
"""Budgets that all pairs keep: the loop judges nothing, and what is open is measured again."""

OVER_DECODE = 1.03
"""Wall time over the time inside ``llama_decode``: at most."""

DOCTOR_RUNS = 5


class Bench(NamedTuple):
    """A build with its programs, and what is measured with them."""

    lib: Path
    python: str
    model: Path
    corpus: Path
    pairs: tuple[str, ...]
    chunks: int
    ctx: int
    gpu_layers: int
    threads: int
    speed_model: Path
    depths: str
    pp: int
    tg: int
    expect: Path | None
    """Declares what is known to fail there: a death is confirmed and explained otherwise."""
    folder: Path

    def program(self, name: str) -> Path:
        """A program of the build."""
        return self.lib / name

    def wide(self) -> Path:
        """Write a configuration whose budgets all pairs keep."""
        file = self.folder / "wide.toml"
        file.write_text(WIDE, encoding="utf-8")
        return file


class Timed(NamedTuple):
    """A run of ours: its result, and the seconds that a user waits for it."""

    result: Result
    wall: float


def matrix(bench: Bench, name: str, *options: str, model: Path | None = None) -> Timed:
    """``pytest --kv-matrix`` as a user runs it, in an empty folder with an empty store."""
    folder = bench.folder / name
    folder.mkdir()
    out = folder / "result.json"
    command = [
        sys.executable, "-m", "pytest", "-q", "--kv-matrix", "--kv-lib", str(bench.lib),
        "--kv-python", bench.python, "--kv-model", str(model or bench.model),
        "--kv-corpus", str(bench.corpus), "--kv-ctx", str(bench.ctx), "--kv-order", "sequential",
        "--kv-pairs", ",".join(bench.pairs), "--kv-threads", str(bench.threads),
        *(("--kv-gpu-layers", str(bench.gpu_layers)) if bench.gpu_layers >= 0 else ()),
        "--kv-store", str(folder / "store"), "--kv-json", str(out), *options,
    ]  # fmt: skip
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begun
    if not out.exists():
        raise SystemExit(done.stdout + done.stderr)
    return Timed(read(out), wall)


def loop(bench: Bench) -> float:
    """Seconds of ``llama-perplexity``: f16's logits once, then each pair against them."""
    base = bench.folder / "base.kld"
    layers = bench.gpu_layers if bench.gpu_layers >= 0 else 999
    common = [
        str(bench.program("llama-perplexity")), "-m", str(bench.model), "-f", str(bench.corpus),
        "-c", str(bench.ctx), "--chunks", str(bench.chunks), "-t", str(bench.threads),
        "-ngl", str(layers), "-fa", "on", "--kl-divergence-base", str(base),
    ]  # fmt: skip
    begun = time.perf_counter()
    subprocess.run(common, capture_output=True, check=True)
    for pair in bench.pairs:
        k, v = pair.split("/")
        done = subprocess.run(
            [*common, "--kl-divergence", "-ctk", k, "-ctv", v], capture_output=True, check=False
        )
        if done.returncode:
            print(f"  (llama-perplexity ends with {done.returncode} on {pair})")
    spent = time.perf_counter() - begun
    base.unlink(missing_ok=True)
    return spent


def llama_bench(bench: Bench) -> float:
    """Seconds of ``llama-bench`` for the same tests of the same pairs, its five repetitions."""
    layers = bench.gpu_layers if bench.gpu_layers >= 0 else 999
    begun = time.perf_counter()
    for pair in bench.pairs:
        k, v = pair.split("/")
        command = [
            str(bench.program("llama-bench")), "-m", str(bench.speed_model), "-p", str(bench.pp),
            "-n", str(bench.tg), "-d", bench.depths, "-t", str(bench.threads),
            "-ngl", str(layers), "-fa", "1", "-ctk", k, "-ctv", v, "-o", "json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            print(f"  (llama-bench ends with {done.returncode} on {pair})")
    return time.perf_counter() - begun


def told(what: str, ratio: float, target: float, text: str) -> None:
    """One row."""
    sign = "≤" if ratio <= target else ">"
    print(f"{what:58} {ratio:6.2f} {sign} {target:<5g} {text}", flush=True)


def parts(result: Result) -> str:
    """What the time went into, the five largest parts."""
    assert result.timing is not None
    most = list(result.timing.parts.items())[:5]
    return ", ".join(f"{part} {seconds:.1f} s" for part, seconds in most)


def quality(bench: Bench) -> None:
    """Rows of the quality matrix against the loop."""
    fixed = ("--kv-chunks", str(bench.chunks))
    looped = loop(bench)
    bare = matrix(bench, "bare", *BARE, "--kv-config", str(bench.wide()), *fixed)
    known = ("--kv-config", str(bench.expect)) if bench.expect else ()
    whole = matrix(bench, "whole", "--kv-speed", "off", *known, *fixed)
    gpu = bool(bare.result.environment.library.gpus_in_use(bench.gpu_layers))
    named = f"{len(bench.pairs)} pairs × {bench.chunks} × {bench.ctx}"
    text = f"{bare.wall:.1f} s over {looped:.1f} s: {parts(bare.result)}"
    told(f"{named}, bare, wall over the loop", bare.wall / looped, 0.5 if gpu else 0.95, text)
    text = f"{whole.wall:.1f} s over {looped:.1f} s: {parts(whole.result)}"
    told(f"{named}, all but speed, over the loop", whole.wall / looped, 1.0, text)
    decode = bare.result.decode_seconds
    told("bare, wall over llama_decode", bare.wall / decode, OVER_DECODE, f"{decode:.1f} s in it")
    starts = [cell.process for cell in bare.result.cells]
    again = [cell.pair for cell in bare.result.cells if cell.again]
    print(f"  processes: {dict.fromkeys(starts)}; measured again: {', '.join(again) or 'none'}")


def early(bench: Bench) -> None:
    """The verdict of the default profile over that of a fixed count, on the same pairs."""
    fixed = matrix(bench, "fixed", *PREFILL, "--kv-chunks", "32")
    usual = matrix(bench, "usual", *PREFILL)
    cells = usual.result.cells
    drawn = sorted(len(cell.digests) for cell in cells)
    text = f"{usual.wall:.1f} s over {fixed.wall:.1f} s; chunks {drawn}"
    told("`pr` verdict over 32 fixed chunks", usual.wall / fixed.wall, 0.4, text)


def speed(bench: Bench) -> None:
    """The speed table over llama-bench's."""
    theirs = llama_bench(bench)
    timed = matrix(
        bench, "speed", "--kv-depths", bench.depths, "--kv-pp", str(bench.pp), "--kv-tg",
        str(bench.tg), "-k", "speed", *PREFILL[2:], model=bench.speed_model,
    )  # fmt: skip
    named = f"{len(bench.pairs)} pairs × {len(bench.depths.split(','))} depths"
    text = f"{timed.wall:.1f} s over {theirs:.1f} s: {parts(timed.result)}"
    told(f"speed table, {named}, over llama-bench", timed.wall / theirs, 1.5, text)
    for cell in timed.result.speed:
        tests = ", ".join(f"{one.title} {one.median_ts:,.0f}" for one in cell.tests)
        print(f"  {cell.pair} ({cell.verdict}, {cell.method}): {tests or cell.message}")


def starts(bench: Bench) -> None:
    """Seconds of the doctor, of collecting, and of a pytest run that has nothing to do with it.

    Raises:
        subprocess.CalledProcessError: one of them refuses, which would be quick.
    """
    own = ["--kv-lib", str(bench.lib), "--kv-python", bench.python, "--kv-model", str(bench.model)]

    def least(command: list[str]) -> float:
        spent = []
        for _ in range(DOCTOR_RUNS):
            begun = time.perf_counter()
            subprocess.run(command, cwd=bench.folder, capture_output=True, check=True)
            spent.append(time.perf_counter() - begun)
        return min(spent)

    doctor = least([sys.executable, "-m", "pytest_kvquant", "doctor", *own])
    told("kvquant doctor, seconds", doctor, 1.5, "")
    unrelated = bench.folder / "test_unrelated.py"
    unrelated.write_text("def test_it():\n    pass\n", encoding="utf-8")
    pytest = [sys.executable, "-m", "pytest"]
    only = [*pytest, "-q", "-p", "no:cacheprovider", str(unrelated)]
    corpus = ["--kv-corpus", str(bench.corpus)]
    collecting = least([*pytest, "--kv-matrix", "--collect-only", "-q", *own, *corpus])
    plain, without = least(only), least([*only, "-p", "no:kvquant"])
    told("collecting, seconds beyond a run of one empty test", collecting - without, 1.0, "")
    told("an unrelated run, milliseconds more", 1e3 * (plain - without), 5, "")


def orders(bench: Bench) -> None:
    """Warm gives what fresh gives, in three orders, those with turbo2 V first in one of them.

    Only figures that the kept process gave count: with budgets that all keep, and chunks enough for
    a verdict, little is measured again.
    """
    fixed = ("--kv-config", str(bench.wide()), "--kv-chunks", "4", "--kv-isolation")
    pairs = list(bench.pairs)
    turbo2 = [pair for pair in pairs if pair.endswith("/turbo2")]
    fresh = matrix(bench, "fresh", *BARE, *fixed, "fresh").result
    known = {cell.pair: cell.digests for cell in fresh.cells}
    others = [pair for pair in pairs if pair not in turbo2]
    for number, order in enumerate((pairs, pairs[::-1], [*turbo2, *others])):
        name = f"order {number}"
        warm = matrix(bench._replace(pairs=tuple(order)), name, *BARE, *fixed, "warm").result
        kept = [cell for cell in warm.cells if cell.process == "warm" and cell.digests]
        differ = [cell.pair for cell in kept if cell.digests != known[cell.pair]]
        again = {cell.pair: cell.again for cell in warm.cells if cell.again}
        unlike = f", not {', '.join(differ)}" if differ else ""
        print(
            f"warm, {order[0]} first: of {len(kept)} that the kept process measured "
            f"{len(kept) - len(differ)} bit-equal to fresh{unlike}; measured again: "
            f"{again or 'none'}",
            flush=True,
        )


ROWS: dict[str, Callable[[Bench], None]] = {
    "quality": quality, "early": early, "speed": speed, "starts": starts, "orders": orders,
}  # fmt: skip


def main() -> None:
    """Read the command line and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lib", type=Path, required=True, help="folder with libllama and programs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter with fitting bindings"
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--pairs", default="f16/f16,q8_0/q8_0,q4_0/q4_0,q8_0/q4_0")
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--gpu-layers", type=int, default=-1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--speed-model", type=Path, help="default: --model")
    parser.add_argument("--depths", default="0,2048,4096")
    parser.add_argument("--pp", type=int, default=512)
    parser.add_argument("--tg", type=int, default=128)
    parser.add_argument("--expect", type=Path, help="kvquant.toml of what is known to fail")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of: {', '.join(ROWS)}")
    given = vars(parser.parse_args())
    rows = given.pop("rows").split(",")
    paths = {name: given[name].resolve() for name in ("lib", "model", "corpus")}
    with tempfile.TemporaryDirectory(prefix="kvquant-table-") as folder:
        bench = Bench(
            **{
                **given,
                **paths,
                "pairs": tuple(re.split(r",\s*", given["pairs"])),
                "speed_model": (given["speed_model"] or given["model"]).resolve(),
                "expect": given["expect"] and given["expect"].resolve(),
                "folder": Path(folder),
            }
        )
        for row in rows:
            ROWS[row](bench)


if __name__ == "__main__":
    main()
