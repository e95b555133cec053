"""The planted operations: what is changed, where, and in which corner that lies.

Every fault lives in one corner: it is invisible in all others. ``dose`` is how much is changed;
faults that are ``near`` the limits are within three times of what is still called healthy.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

MINI = "mini"
"""The embedded model; all others are members of the zoo."""


class Planted(NamedTuple):
    """One fault."""

    corner: str
    name: str
    operation: str
    """What is changed: ``attention``, ``write``, ``rope``, ``rotation``, ``norm``, ``mask``,
    ``scale``, ``softcap``, ``positions``, ``cells``, ``shift``, ``outside`` or ``unwatched``."""
    change: str
    dose: float = 0.0
    where: dict[str, Any] = {}  # noqa: RUF012  (of a tuple, never changed)
    """Conditions: ``tokens``, ``length``, ``layer``, ``head``, ``side``, ``chance``, ``streams``,
    ``group`` (of a KV head), ``after`` (an operation on the cache)."""
    pair: str = "q8_0/q4_0"
    model: str = MINI
    near: bool = False


def _attention() -> list[Planted]:
    found = []
    for tokens in (1, 2, 3, 4, 5, 7, 8):
        found.append(
            Planted(
                "small batches",
                f"head 1 scores, {tokens} tokens",
                "attention",
                "scores",
                0.01,
                {"tokens": [tokens, tokens], "head": 1},
                near=True,
            )
        )
    found += [
        Planted(
            "small batches",
            "values 1 %, 2 to 8 tokens",
            "attention",
            "values",
            0.01,
            {"tokens": [2, 8], "head": 0},
            near=True,
        ),
        Planted(
            "small batches",
            "second row repeats the first, 2 tokens",
            "attention",
            "row",
            0,
            {"tokens": [2, 2]},
        ),
        Planted(
            "small batches",
            "last row of 4 tokens zero",
            "attention",
            "last row",
            0,
            {"tokens": [4, 4]},
        ),
        Planted(
            "one or many", "half of V zero, 1 token", "attention", "half", 0, {"tokens": [1, 1]}
        ),
        Planted(
            "one or many",
            "values 2 %, 1 token",
            "attention",
            "values",
            0.02,
            {"tokens": [1, 1]},
            near=True,
        ),
        Planted(
            "one or many",
            "scores 1 %, 32 and more",
            "attention",
            "scores",
            0.01,
            {"tokens": [32, 4096]},
            near=True,
        ),
        Planted(
            "one or many",
            "causal one ahead, 64 and more",
            "attention",
            "ahead",
            1,
            {"tokens": [64, 4096]},
        ),
        Planted("depth", "cells past 256 lost", "attention", "past", 256, {"length": [300, 9999]}),
        Planted(
            "depth",
            "oldest cell lost past 256",
            "attention",
            "oldest",
            1,
            {"length": [257, 9999], "tokens": [1, 64]},
            near=True,
        ),
        Planted(
            "depth",
            "scores 1 % past 256",
            "attention",
            "scores",
            0.01,
            {"length": [300, 9999]},
            near=True,
        ),
        Planted(
            "depth",
            "values 1 % past 440",
            "attention",
            "values",
            0.01,
            {"length": [440, 9999]},
            near=True,
        ),
        Planted(
            "depth",
            "last partial block of 32 lost",
            "attention",
            "tail",
            32,
            {"length": [250, 9999], "tokens": [1, 8]},
        ),
        Planted(
            "depth",
            "newest cell lost at depth",
            "attention",
            "newest",
            1,
            {"length": [250, 9999], "tokens": [1, 4]},
        ),
        Planted(
            "tails",
            "last 32 elements of the last head 3 %",
            "attention",
            "tail elements",
            0.03,
            {"head": -1},
            near=True,
        ),
        Planted(
            "tails",
            "last row 2 %, 33 tokens",
            "attention",
            "last row scaled",
            0.02,
            {"tokens": [33, 33]},
            near=True,
        ),
        Planted(
            "tails",
            "rows past 32 of 33 from another head",
            "attention",
            "row",
            32,
            {"tokens": [33, 33]},
        ),
        Planted(
            "tails", "last element of a head zero", "attention", "last element", 0, {"head": 0}
        ),
    ]
    return found


def _geometry() -> list[Planted]:
    f16 = "f16/f16"
    return [
        Planted(
            "head sizes and groups",
            "head 80: scores 1 %",
            "attention",
            "scores",
            0.01,
            {"head": 1},
            f16,
            "phi2-80",
            near=True,
        ),
        Planted(
            "head sizes and groups",
            "head 96: last 16 elements zero",
            "attention",
            "tail elements",
            -1,
            {},
            "q8_0/q8_0",
            "phi3-96",
        ),
        Planted(
            "head sizes and groups",
            "head 112: values 1 %",
            "attention",
            "values",
            0.01,
            {"head": 0},
            f16,
            "llama-112",
            near=True,
        ),
        Planted(
            "head sizes and groups",
            "7 heads a group: scores 1 %",
            "attention",
            "scores",
            0.01,
            {"head": 6},
            "q8_0/q8_0",
            "qwen2-128",
            near=True,
        ),
        Planted(
            "head sizes and groups",
            "group of 2: head 1 reads KV head 1",
            "attention",
            "kv head",
            0,
            {"head": 1},
        ),
        Planted(
            "head sizes and groups",
            "head 256: scores 1 %",
            "attention",
            "scores",
            0.01,
            {},
            "q8_0/q8_0",
            "gemma3-256",
            near=True,
        ),
        Planted(
            "head sizes and groups",
            "head 192/128: values 1 %",
            "attention",
            "values",
            0.01,
            {"head": 0},
            "q8_0/q8_0",
            "mimo2-192",
            near=True,
        ),
        Planted(
            "head sizes and groups",
            "MLA 576: rows 2 to 4 scaled",
            "attention",
            "values",
            0.01,
            {"tokens": [2, 4]},
            f16,
            "deepseek2-576",
            near=True,
        ),
        Planted(
            "masks", "softcap dropped", "attention", "no softcap", 0, {}, "q8_0/q8_0", "gemma2-256"
        ),
        Planted(
            "masks",
            "softcap of the parameters 2 % off",
            "softcap",
            "factor",
            0.02,
            {},
            "q8_0/q8_0",
            "gemma2-256",
            near=True,
        ),
        Planted(
            "masks",
            "sinks dropped, few tokens",
            "attention",
            "no sinks",
            0,
            {"tokens": [1, 3]},
            "q8_0/q8_0",
            "gpt-oss-64",
        ),
        Planted(
            "masks",
            "a sink 5 % off",
            "attention",
            "sink",
            0.05,
            {"head": 0},
            "q8_0/q8_0",
            "gpt-oss-64",
            near=True,
        ),
        Planted(
            "masks",
            "window one too long",
            "mask",
            "window",
            1,
            {},
            "q8_0/q8_0",
            "gpt-oss-64",
            near=True,
        ),
        Planted(
            "masks",
            "window one too short",
            "mask",
            "window",
            -1,
            {},
            "q8_0/q8_0",
            "gemma3-256",
            near=True,
        ),
        Planted("masks", "oldest 64 cells hidden", "mask", "oldest", 64, {}),
        Planted(
            "masks",
            "oldest cell hidden at depth",
            "mask",
            "oldest",
            1,
            {"length": [300, 9999]},
            near=True,
        ),
        Planted("masks", "the next token shown", "mask", "ahead", 1, {"tokens": [8, 64]}),
        Planted(
            "masks",
            "ALiBi slope 2 % off",
            "attention",
            "slope",
            0.02,
            {"head": 0},
            "q8_0/q8_0",
            "bloom-64",
            near=True,
        ),
    ]


def _writes() -> list[Planted]:
    return [
        Planted(
            "cache writes",
            "K 0.5 % too large, 3 tokens",
            "write",
            "scale",
            0.005,
            {"tokens": [3, 3], "side": "k"},
            near=True,
        ),
        Planted(
            "cache writes", "V 0.5 % too large", "write", "scale", 0.005, {"side": "v"}, near=True
        ),
        Planted(
            "cache writes",
            "last row of V not written",
            "write",
            "stale",
            0,
            {"side": "v", "tokens": [2, 64]},
        ),
        Planted(
            "cache writes",
            "last block of the last row zero",
            "write",
            "block",
            0,
            {"side": "k", "tokens": [5, 5]},
        ),
        Planted(
            "cache writes",
            "rows one cell off, 9 tokens",
            "write",
            "neighbour",
            0,
            {"tokens": [9, 9], "side": "k"},
        ),
        Planted(
            "cache writes",
            "truncated instead of rounded",
            "write",
            "truncated",
            0,
            {"side": "k"},
            near=True,
        ),
        Planted(
            "cache writes",
            "one row of f16 V 0.2 % off",
            "write",
            "scale",
            0.002,
            {"side": "v", "tokens": [4, 4]},
            "f16/f16",
            near=True,
        ),
        Planted(
            "cache writes",
            "K goes to the next cell, 1 token",
            "cells",
            "next",
            1,
            {"tokens": [1, 1]},
        ),
    ]


def _inputs() -> list[Planted]:
    return [
        Planted(
            "graph inputs",
            "rope one position off, last token",
            "rope",
            "position",
            1,
            {"tokens": [2, 64]},
        ),
        Planted("graph inputs", "rope base 1 % off", "rope", "base", 0.01, {}, near=True),
        Planted(
            "graph inputs",
            "rope of 7 tokens scaled 0.1 %",
            "rope",
            "scale",
            0.001,
            {"tokens": [7, 7]},
            near=True,
        ),
        Planted(
            "graph inputs",
            "positions of the graph one off",
            "positions",
            "add",
            1,
            {"tokens": [4, 4]},
        ),
        Planted("graph inputs", "8 of 128 zero after the rotation", "rotation", "zeros", 8, {}),
        Planted(
            "graph inputs",
            "rotation 0.1 % too long",
            "rotation",
            "scale",
            0.001,
            {"tokens": [1, 8]},
            near=True,
        ),
        Planted(
            "graph inputs",
            "norm of queries 0.1 % off",
            "norm",
            "scale",
            0.001,
            {"tokens": [3, 3]},
            near=True,
        ),
        Planted(
            "graph inputs", "norm of the last row zero", "norm", "last row", 0, {"tokens": [16, 16]}
        ),
        Planted(
            "graph inputs",
            "scale of the parameters 1 % off",
            "scale",
            "factor",
            0.01,
            {"tokens": [1, 1]},
            near=True,
        ),
        Planted("graph inputs", "scale of the parameters 10 % off", "scale", "factor", 0.1, {}),
    ]


def _own_path_of_f16() -> list[Planted]:
    f16 = "f16/f16"
    return [
        Planted(
            "f16 itself",
            "scores 1 %, 1 token",
            "attention",
            "scores",
            0.01,
            {"tokens": [1, 1], "head": 0},
            f16,
            near=True,
        ),
        Planted(
            "f16 itself",
            "values 1 %, 33 tokens",
            "attention",
            "values",
            0.01,
            {"tokens": [33, 33], "head": 2},
            f16,
            near=True,
        ),
        Planted(
            "f16 itself",
            "oldest cell lost",
            "attention",
            "oldest",
            1,
            {"length": [200, 9999], "tokens": [1, 9]},
            f16,
            near=True,
        ),
        Planted("f16 itself", "queries in bf16", "attention", "coarse queries", 0, {}, f16),
        Planted(
            "f16 itself", "NaN in one row, 5 tokens", "attention", "nan", 0, {"tokens": [5, 5]}, f16
        ),
        Planted(
            "f16 itself",
            "last row of K stale",
            "write",
            "stale",
            0,
            {"side": "k", "tokens": [8, 8]},
            f16,
        ),
    ]


def _operations() -> list[Planted]:
    return [
        Planted(
            "cache operations",
            "a row of K spoilt by a restore",
            "cells",
            "row",
            0.5,
            {"after": "restore"},
        ),
        Planted(
            "cache operations",
            "rows of V spoilt by a copy across streams",
            "cells",
            "rows",
            0.5,
            {"after": "seq_cp", "side": "v"},
        ),
        Planted(
            "cache operations",
            "a whole row of K lost with a removal",
            "cells",
            "lost",
            0,
            {"after": "seq_rm"},
        ),
        Planted("cache operations", "shift turns by one too few", "shift", "delta", 1, {}),
        Planted(
            "cache operations", "shift leaves the last cell", "shift", "last", 0, {}, near=True
        ),
        Planted(
            "cache operations",
            "rows written after a shift 0.5 % off",
            "write",
            "scale",
            0.005,
            {"after": "seq_add", "side": "k"},
            near=True,
        ),
        Planted(
            "cache operations",
            "values 1 % after a removal",
            "attention",
            "values",
            0.01,
            {"after": "seq_rm"},
            near=True,
        ),
        Planted(
            "cache operations",
            "scores 1 % after a restore",
            "attention",
            "scores",
            0.01,
            {"after": "restore"},
            near=True,
        ),
        Planted(
            "cache operations",
            "mask hides a shared prefix",
            "mask",
            "oldest",
            4,
            {"after": "seq_cp"},
        ),
        Planted(
            "cache operations",
            "a file brings back zeros",
            "cells",
            "lost",
            0,
            {"after": "restore_file"},
        ),
        Planted("slots", "second stream reads the first", "attention", "stream", 0, {"streams": 2}),
        Planted(
            "slots",
            "values 1 % in the last stream",
            "attention",
            "values",
            0.01,
            {"streams": 2, "stream": -1},
            near=True,
        ),
        Planted(
            "slots",
            "unified: a cell of another sequence shown",
            "mask",
            "foreign",
            1,
            {"unified": True},
        ),
        Planted(
            "slots",
            "unified: own oldest cell hidden",
            "mask",
            "oldest",
            1,
            {"unified": True},
            near=True,
        ),
        Planted(
            "slots",
            "scores 1 % with 4 tokens of 4 slots",
            "attention",
            "scores",
            0.01,
            {"unified": True, "tokens": [4, 4]},
            near=True,
        ),
    ]


def _gross_and_subtle() -> list[Planted]:
    return [
        Planted("gross", "values doubled", "attention", "values", 1.0),
        Planted("gross", "half of V zero", "attention", "half", 0),
        Planted("gross", "sign of a head", "attention", "values", -2.0, {"head": 1}),
        Planted("gross", "keys unscaled", "attention", "scores", 10.0),
        Planted("gross", "layer zero", "attention", "values", -1.0, {"layer": 0}),
        Planted("subtle", "noise of 0.3 % on values", "attention", "noise", 0.003, {}, near=True),
        Planted(
            "subtle",
            "noise of 0.3 %, 1 and 2 tokens",
            "attention",
            "noise",
            0.003,
            {"tokens": [1, 2]},
            "q4_0/q4_0",
            near=True,
        ),
        Planted(
            "subtle",
            "one head in three nodes 1 %",
            "attention",
            "scores",
            0.01,
            {"chance": 0.3},
            near=True,
        ),
        Planted(
            "subtle",
            "two cells exchanged in values",
            "attention",
            "exchanged",
            0,
            {"length": [200, 9999]},
        ),
        Planted(
            "subtle",
            "values 0.6 %, one layer",
            "attention",
            "values",
            0.006,
            {"layer": 3},
            near=True,
        ),
        Planted(
            "outside attention",
            "feed-forward 5 % off, 3 tokens",
            "outside",
            "scale",
            0.05,
            {"tokens": [3, 3]},
        ),
        Planted(
            "outside attention",
            "feed-forward row lost, 33 tokens",
            "outside",
            "last row",
            0,
            {"tokens": [33, 33]},
        ),
        Planted(
            "fused only",
            "wrong only where nodes are not looked at, 8 tokens",
            "unwatched",
            "scale",
            0.01,
            {"tokens": [8, 8]},
        ),
        Planted(
            "fused only",
            "wrong only where nodes are not looked at, 1 token",
            "unwatched",
            "scale",
            0.001,
            {"tokens": [1, 1]},
            near=True,
        ),
    ]


ALL: tuple[Planted, ...] = (
    *_attention(), *_geometry(), *_writes(), *_inputs(), *_own_path_of_f16(), *_operations(),
    *_gross_and_subtle(),
)  # fmt: skip

SEED = 15

HELD_OUT = frozenset(one.name for one in random.Random(SEED).sample(sorted(ALL), len(ALL) // 2))
"""Names of the half that was not looked at while limits were set."""

GEMMA, Q8 = "gemma2-256", "q8_0/q8_0"

LATER: tuple[Planted, ...] = (
    Planted("small batches", "scores 1 % of 5 to 7 tokens", "attention", "scores", 0.01,
            {"tokens": [5, 7], "head": 2}, near=True),
    Planted("depth", "oldest cell lost at 255 to 257", "attention", "oldest", 1,
            {"length": [255, 257]}, near=True),
    Planted("depth", "newest cell lost at 511 and 512", "attention", "newest", 1,
            {"length": [511, 513]}, near=True),
    Planted("head sizes and groups", "values 1 % in the last head", "attention", "values", 0.01,
            {"head": -1}, near=True),
    Planted("head sizes and groups", "scores 1 % in one KV head's group", "attention", "scores",
            0.01, {"group": 1}, near=True),
    Planted("slots", "scores 1 % in the second stream", "attention", "scores", 0.01,
            {"streams": 2, "stream": 1}, near=True),
    Planted("cache writes", "one row of K in 97 is that before it", "write", "rare", 97,
            {"side": "k"}),
    Planted("tails", "sign of one lane in the tail", "attention", "sign", -3, {"head": 0}),
    Planted("cache operations", "a removed cell is still seen", "mask", "ahead", 1,
            {"after": "seq_rm"}),
    Planted("masks", "softcap missing for 2 tokens", "attention", "no softcap", 0,
            {"tokens": [2, 2]}, Q8, GEMMA),
    Planted("slots", "values 1 % in a stream between", "attention", "values", 0.01,
            {"streams": 3, "stream": 1}, near=True),
    Planted("graph inputs", "rope base 1 % in a layer that reads another's cache", "rope", "base",
            0.01, {"layer": 4}, Q8, "gemma4-512", near=True),
)  # fmt: skip
"""Kinds that came when all limits stood: not part of the halves above."""
