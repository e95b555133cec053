"""Every option of the plugin, declared once.

The command line (``--kv-ctx``), the TOML key (``ctx``) and the README's table all come from
:data:`OPTIONS`. Standard library only: it is imported wherever pytest is asked for one of them, or
for help.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_kvquant.config.speed_tests import NAMES, SPEED_TESTS

TEXT, INT, NUMBER, LIST, INTS, FLAG = "text", "int", "number", "list", "ints", "flag"
PATHS = "paths"
"""How a command-line word becomes a value: as it is, whole number, number, comma list of either,
switch; comma list of paths or of names that stand for something."""


class Option(NamedTuple):
    """One option: ``--kv-<name>`` on the command line, ``<name>`` in TOML (dashes kept)."""

    name: str
    kind: str
    metavar: str
    help: str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The command-line spelling."""
        return f"--kv-{self.name}"

    @property
    def field(self) -> str:
        """The name of the field of :class:`pytest_kvquant.config.settings.Settings`."""
        return self.name.replace("-", "_")

    @property
    def takes(self) -> str:
        """What stands after it: its values where they are few, else a word for them."""
        return "|".join(self.choices) or self.metavar

    @property
    def dest(self) -> str:
        """The attribute of pytest's option namespace."""
        return f"kv_{self.field}"


OPTIONS: tuple[Option, ...] = (
    Option("model", TEXT, "PATH", "GGUF model to measure with (default: the embedded one)"),
    Option(
        "corpus",
        PATHS,
        "TEXT,…",
        "texts to evaluate on: files, or prose (embedded; default), code, chat, tools, self",
    ),
    Option("lib", TEXT, "DIR", "directory of the llama.cpp build (libllama) to measure"),
    Option("python", TEXT, "PATH", "interpreter whose llama-cpp-python fits --kv-lib"),
    Option("reference-lib", TEXT, "DIR", "take the f16 reference from this build instead"),
    Option("reference-python", TEXT, "PATH", "interpreter for it (default: --kv-python)"),
    Option(
        "reference-devices",
        LIST,
        "D",
        "take the f16 reference from this device: CPU judges a GPU's",
    ),
    Option(
        "reference-logits",
        TEXT,
        "PATH",
        "take the f16 reference from this file of llama-perplexity --save-all-logits (16 bits)",
    ),
    Option("compare-cells", FLAG, "", "compare each cell with the same pair of --kv-reference-lib"),
    Option("types", LIST, "T1,T2,…", "cache types by ggml name; all ordered pairs are cells"),
    Option("pairs", LIST, "K/V,…", "these cells instead: K type/V type"),
    Option("skip", LIST, "K/V,…", "leave these cells out; * matches any type"),
    Option(
        "devices",
        LIST,
        "D1,D2,…",
        "devices to measure on (kvquant doctor lists them; CPU:0-3: cores), one per process of -n",
    ),
    Option("shard", TEXT, "I/N", "the I-th of N parts of the matrix; then: kvquant merge"),
    Option("ctx", INT, "N", "tokens per chunk (default: 512)"),
    Option(
        "profile",
        TEXT,
        "NAME",
        "quick (at most 8 chunks), pr (32, the default) or nightly (128, then decided by the mean)",
        choices=("quick", "pr", "nightly"),
    ),
    Option("chunks", INT, "N", "exactly N chunks per cell, judged once: no early decisions"),
    Option("fail-fast", FLAG, "", "give a failing pair up at once, and end the run after it"),
    Option("strict", FLAG, "", "what is inconclusive, or was not measured, fails"),
    Option("scored", INT, "N", "score only the last N tokens of a chunk (default: half of it)"),
    Option(
        "order",
        TEXT,
        "ORDER",
        "order of chunks: sequential, or shuffled by the seed (default)",
        choices=("sequential", "shuffled"),
    ),
    Option("seed", INT, "N", "seed of the shuffled order (default: 0)"),
    Option("threads", INT, "N", "CPU threads of llama.cpp (default: physical cores)"),
    Option("gpu-layers", INT, "N", "layers on the GPU (default: all)"),
    Option("batch", INT, "N", "logical batch, n_batch (default: 2048)"),
    Option("ubatch", INT, "N", "physical batch, n_ubatch (default: 512)"),
    Option(
        "llama", TEXT, "'ARGS'", "further options of llama.cpp, in its words: --kv-llama='-sm row'"
    ),
    Option("rpc", LIST, "HOST:PORT,…", "RPC servers of llama.cpp that hold parts of the model"),
    Option("decode", INT, "N", "tokens per cell scored one at a time (default: 128; 0: none)"),
    Option("trajectory", INT, "N", "tokens of each greedy continuation (default: 16; 0: none)"),
    Option("recall", INT, "N", "tokens over which recall is measured (default: ctx; 0: not)"),
    Option("robustness", FLAG, "", "also measure on disturbed text (default: in nightly)"),
    Option("speed", TEXT, "ON", "time every pair against f16 (default: on)", choices=("on", "off")),
    Option(
        "disturbed",
        TEXT,
        "HOW",
        "speeds while others use the device: repeat, then undecided (default), or ignore that",
        choices=("ignore", "repeat"),
    ),
    Option("depths", INTS, "N,…", "depths to time at (default: by profile; embedded model: 0)"),
    *(Option(one.name, INT, "N", one.help) for one in SPEED_TESTS),
    Option("rounds", INT, "N", "most rounds of a speed test (default: 24; quick: 9)"),
    Option(
        "sample",
        NUMBER,
        "SECONDS",
        "time of a speed sample (default: 0.01; CPU 0.5; embedded 0.008)",
    ),
    Option("speed-baseline", TEXT, "PATH", "result of an earlier run, for absolute speed floors"),
    Option(
        "probe",
        TEXT,
        "WHEN",
        "compare cache contents with the reference quantizer: always (default), fail or off",
        choices=("off", "fail", "always"),
    ),
    Option(
        "healthy",
        TEXT,
        "ON",
        "judge kernels against an emulated healthy cell: on (default), or off: by [budgets] alone",
        choices=("on", "off"),
    ),
    Option(
        "coverage",
        TEXT,
        "LEVEL",
        "how much of the kernels is examined: off, minimal, standard, full (default: by profile)",
        choices=("off", "minimal", "standard", "full"),
    ),
    Option(
        "zoo",
        TEXT,
        "WHICH",
        "pairs on tiny models of other head sizes, too: off, handful (default in pr), all (in "
        "nightly), or names",
    ),
    Option("scenarios", LIST, "PATH,…", "Python files with further scenarios of cache operations"),
    Option(
        "isolation",
        TEXT,
        "HOW",
        "cells in processes of their own (fork, fresh) or in one under proof (warm); default: fork "
        "on a Linux CPU, else warm",
        choices=("fork", "warm", "fresh"),
    ),
    Option("ceiling", FLAG, "", "search the largest context of every pair (default: in nightly)"),
    Option("ceiling-max", INT, "N", "largest context to try (default: what it was trained for)"),
    Option(
        "ceiling-memory",
        NUMBER,
        "GB",
        "most memory for caches in the search for the largest context (default: --kv-memory-limit)",
    ),
    Option(
        "memory-limit",
        NUMBER,
        "GB",
        "most memory for caches that are timed or searched (default: what is free)",
    ),
    Option("timeout", NUMBER, "SECONDS", "longest silence of a worker (default: 600)"),
    Option("fresh", FLAG, "", "measure all anew, also what an interrupted run has finished"),
    Option("store", TEXT, "DIR", "where f16 references are kept (default: the user's cache)"),
    Option("store-limit", NUMBER, "GB", "most that the store may hold (default: 20)"),
    Option("baselines", TEXT, "DIR", "where accepted figures are kept (default: baselines)"),
    Option("ratchet", FLAG, "", "what got better passes, and is proposed in DIR-proposed"),
    Option("json", TEXT, "PATH", "write the whole result here"),
    Option("report", TEXT, "PATH", "write an HTML page here; needs the extra [report]"),
    Option("summary", TEXT, "PATH", "write a markdown summary (default: $GITHUB_STEP_SUMMARY)"),
    Option("variant", TEXT, "NAME", "under the environment of this table of [variants]"),
    Option("live", FLAG, "", "rewrite the page after every pair; it follows the run by itself"),
    Option("lines", TEXT, "PATH", "add a line of JSON here whenever a pair is finished"),
    Option(
        "table",
        TEXT,
        "TABLE",
        "print the two tables of an article: PPL, KL, top-1; pp and tg by depth",
        choices=("article", "article:csv", "article:latex"),
    ),
    Option("evidence", TEXT, "DIR", "keep the per-token figures of each cell here, for a replay"),
)
"""In the order of the README. ``--kv-matrix`` and ``--kv-config`` stand apart: no TOML twin."""

GROUPS: dict[str, tuple[str, ...]] = {
    "what to measure": (
        "model", "corpus", "lib", "python", "reference-lib", "reference-python",
        "reference-devices", "reference-logits", "compare-cells", "types", "pairs", "skip",
        "zoo",
    ),
    "where": (
        "devices", "rpc", "llama", "shard", "threads", "gpu-layers", "batch", "ubatch", "timeout",
        "isolation", "variant",
    ),
    "quality": (
        "ctx", "profile", "chunks", "fail-fast", "strict", "scored", "order", "seed", "decode",
        "trajectory", "recall", "robustness", "healthy", "probe", "coverage",
        "scenarios",
    ),
    "speed and memory": (
        "speed", "disturbed", "depths", *NAMES, "rounds", "sample", "speed-baseline", "ceiling",
        "ceiling-max", "ceiling-memory", "memory-limit",
    ),
    "what is kept and shown": (
        "store", "store-limit", "baselines", "ratchet", "json", "report", "summary", "live",
        "lines", "table", "evidence",
    ),
}  # fmt: skip
"""Options by purpose, as ``--help`` shows them."""


def group_of(option: Option) -> str:
    """The group of an option; what has none stands with what is measured."""
    return next(
        (group for group, names in GROUPS.items() if option.name in names), next(iter(GROUPS))
    )
