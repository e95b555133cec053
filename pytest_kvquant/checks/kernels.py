"""Kernels of a pair, each against exact arithmetic on its own inputs; no budget is involved."""

from __future__ import annotations

import math

import msgspec

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import FLOOR_FACTOR, fact, listed
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.quality import batch_noise
from pytest_kvquant.quality.scenario_limits import f16_apart
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.kernels import BROKEN, PLACEMENT, Examination

ATTENTION = frozenset({"attention", "softmax", "product"})
WRITES = frozenset({"write"})

LADDER_SHARE = 0.1
"""Two batch sizes of one cell may differ by this share of its KL budget: a rounding that falls the
other way moves a quantized value by a whole step, which f16 does not know."""


@check("attention", title="attention", test="test_attention", group="kernels",
       needs="kernels", order=0)  # fmt: skip
def attention(subject: Subject) -> Check | None:
    """Attention gives what exact arithmetic gives on its own inputs, in every batch size and depth.

    Why: bugs live in corners (2 to 8 query tokens, past 256 cells, one head size, a tail) that no
    figure of a whole text shows.

    A failure means: the kernel that the text names is wrong; the file beside it reproduces it.
    """
    return _nodes("attention", subject, lambda operation: operation in ATTENTION)


@check("cache_writes", title="cache writes", test="test_cache_writes", group="kernels",
       needs="kernels", order=1)  # fmt: skip
def cache_writes(subject: Subject) -> Check | None:
    """Every row that is written is what the reference quantizer makes of the row handed in.

    Why: a write can go wrong in one batch size, in the last rows, or in one layer.

    A failure means: the quantizer of this backend, or where its rows go, is wrong.
    """
    return _nodes("cache_writes", subject, lambda operation: operation in WRITES)


@check("graph_inputs", title="graph inputs", test="test_graph_inputs", group="kernels",
       needs="kernels", order=2)  # fmt: skip
def graph_inputs(subject: Subject) -> Check | None:
    """Ropes, rotations, norms, masks, positions and scales are what they must be.

    Why: an attention that is right on wrong inputs is wrong all the same.

    An operation around attention that is not understood leaves it open, and is named.

    A failure means: the operation before or behind attention that the text names is wrong.
    """
    others = ATTENTION | WRITES | {PLACEMENT}
    found = _nodes("graph_inputs", subject, lambda operation: operation not in others)
    examined = subject.cell.kernels
    if found is None or examined is None or found.verdict != "pass" or not examined.unknown:
        return found
    return msgspec.structs.replace(found, verdict="inconclusive")


@check("attention_placement", title="place of attention", test="test_attention_placement",
       group="kernels", needs="kernels", order=3)  # fmt: skip
def attention_placement(subject: Subject) -> Check | None:
    """Attention runs where the cache of its layer lies.

    Why: a pair without a kernel falls back to the processor, right and 8 to 78 times slower.

    A failure means: this backend has no kernel for the pair where it has one for f16. Where it has
    none for heads of this size or this mask, all pairs are told so and none fails here.
    """
    found = subject.cell.kernels
    if found is None or not any(one.operation in ATTENTION for one in found.corners):
        return None
    wrong = [one for one in found.failures if one.operation == PLACEMENT]
    control = subject.reference_kernels
    if wrong and control and any(one.operation == PLACEMENT for one in control.failures):
        text = f"{wrong[0].text}; so is f16's: no pair of types can run there"
        return fact("attention_placement", "pass", text)
    if wrong and subject.gpus and not subject.kv_offload:
        return fact("attention_placement", "pass", f"{wrong[0].text}, as --no-kv-offload asks")
    if wrong and not subject.off_device:
        return fact("attention_placement", "fail", wrong[0].text)
    if wrong:
        return fact("attention_placement", "pass", f"{wrong[0].text}, as [expect] says")
    where = dict.fromkeys(one.backend for one in found.corners if one.operation in ATTENTION)
    return fact("attention_placement", "pass", f"attention ran on {', '.join(where)}")


@check("fused", title="without the oracle", test="test_fused", group="kernels",
       needs="kernels", order=4)  # fmt: skip
def fused(subject: Subject) -> Check | None:
    """The same batch gives the same logits whether or not its nodes are looked at.

    Why: nodes that are looked at are computed one by one; otherwise kernels may fuse.

    A failure means: a fused kernel differs from the single ones, which the oracle found right.
    """
    found, control = subject.cell.kernels, subject.reference_kernels
    if found is None:
        return None
    figures = [one for one in found.rungs if one.fused is not None]
    if not figures:
        return None
    worst = max(figures, key=lambda one: one.fused or 0.0)
    floor = max((one.fused or 0.0 for one in control.rungs), default=0.0) if control else 0.0
    limit = _share(subject)
    if subject.pair == REFERENCE:  # it has no budget
        limit = f16_apart(found)
    if batch_noise.on_cpu(found):
        limit = 0.0
    if found is not control:  # where f16 differs, as a window's cells do that are filled again
        turned = batch_noise.allowed(floor, batch_noise.usual(found))
        limit = max(limit, FLOOR_FACTOR * floor, turned)
    same = (worst.fused or 0.0) <= limit
    text = (
        f"a batch of {worst.tokens} tokens at depth {worst.depth} differs by KL {worst.fused:.2g} "
        f"when its nodes are looked at, allowed {limit:.2g}"
    )
    said = "logits are the same whether or not nodes are looked at"
    verdict = "pass" if same else "fail"
    return fact("fused", verdict, said if same else text, figure=worst.fused, limit=limit)


@check("ladder", title="batch sizes", test="test_ladder", group="kernels",
       needs="kernels", order=5)  # fmt: skip
def ladder(subject: Subject) -> Check | None:
    """The same tokens over the same cache give the same logits in every batch size and depth.

    Why: speculative decoding, parallel slots and prefix reuse run 2 to 64 tokens all day.

    A failure means: a batch size takes a kernel, or a path around it, that is wrong.
    """
    found = subject.cell.kernels
    if found is None or not any(one.own is not None for one in found.rungs):
        return None
    if unsteady := [one for one in found.rungs if one.unsteady is not None]:
        one = max(unsteady, key=lambda one: one.own or 0.0)
        text = (
            f"a batch of {one.tokens} tokens at depth {one.depth} gives other logits each time: "
            f"KL {one.own:.2g} from the largest batch, and {one.unsteady:.2g}, of the same text"
        )
        return fact("ladder", "fail", text + _doubt(subject), figure=one.own, limit=one.unsteady)
    worst, limit, excess = None, 0.0, -1.0
    for one in found.rungs:
        if one.own is None:
            continue
        if subject.pair == REFERENCE:  # it cannot be held against itself
            allowed = f16_apart(found)
        else:
            cost = max(batch_noise.usual(found), one.cost or 0.0)
            own = min(cost, subject.budgets.get("kl_mean", math.inf))
            turned = 0.0 if batch_noise.on_cpu(found) else own
            least = _share(subject)
            control = subject.reference_kernels
            healthy = batch_noise.of_pair(found, control, one.depth, one.tokens, turned)
            allowed = max(least, healthy)
        ratio = one.own / allowed if allowed else float(one.own > 0)
        if math.isnan(ratio):  # a disagreement
            ratio = math.inf
        if ratio > excess:
            worst, limit, excess = one, allowed, ratio
    assert worst is not None
    text = (
        f"a batch of {worst.tokens} tokens at depth {worst.depth} gives other logits than the "
        f"largest batch: KL {worst.own:.2g}, allowed {limit:.2g}"
    )
    same = excess <= 1
    said = "every batch size gives the same logits"
    if again := sum(one.looks > 1 for one in found.rungs):
        said += f" ({again} looked at again with other tokens)"
    return fact("ladder", "pass" if same else "fail", said if same else text + _doubt(subject),
                figure=worst.own, limit=limit)  # fmt: skip


@check("flash_attention", title="flash attention", test="test_flash_attention", group="kernels",
       needs="kernels", order=6)  # fmt: skip
def flash_attention(subject: Subject) -> Check | None:
    """f16 gives the same logits with flash attention and with single operations.

    Why: all pairs are compared with f16; its own flash attention may be what is wrong.

    A failure means: one of the two ways is wrong, and no figure against f16 means anything.
    """
    found = subject.cell.kernels
    if found is not None and found.flash_problem is not None:
        text = f"f16 with and without flash attention cannot be compared: {found.flash_problem}"
        return fact("flash_attention", "fail", text + _doubt(subject), figure=found.without_flash)
    if found is None or found.without_flash is None:
        return None
    apart, limit = found.without_flash, f16_apart(found)
    text = f"with and without flash attention f16 differs by KL {apart:.2g}, allowed {limit:.2g}"
    same = apart <= limit
    said = "f16 is the same with and without flash attention"
    text = said if same else text + _doubt(subject)
    verdict = "pass" if same else "fail"
    return fact("flash_attention", verdict, text, figure=apart, limit=limit)


def _share(subject: Subject) -> float:
    """Nats; 0 where there is no budget, as on members of the zoo."""
    return LADDER_SHARE * subject.budgets.get("kl_mean", 0.0)


def _nodes(name: str, subject: Subject, belongs: object) -> Check | None:
    found = subject.cell.kernels
    assert callable(belongs)
    if found is None:
        return None
    if found.problem is not None:
        return fact(name, *_unseen(found))
    corners = [one for one in found.corners if belongs(one.operation)]
    declared = subject.declared_scenarios
    failures = [
        one for one in found.failures if belongs(one.operation) and one.scenario not in declared
    ]
    nodes = sum(one.nodes for one in corners)
    ratio = max((one.ratio for one in corners), default=0.0)
    if failures:
        wrong = sum(one.failed for one in corners)
        texts = [
            one.text + (f" [kvquant reproduce {one.reproducer}]" if one.reproducer else "")
            for one in failures
        ]
        text = f"{wrong} of {nodes} nodes are wrong: {listed(texts)}{_doubt(subject)}"
        return fact(name, "fail", text, figure=ratio, limit=1.0)
    if not nodes:
        return fact(name, "inconclusive", f"no node was judged{_missing(found)}")
    text = f"{nodes} nodes, the worst at {ratio:.2g} of its limit{_missing(found)}"
    return fact(name, "pass", text, figure=ratio, limit=1.0)


def _doubt(subject: Subject) -> str:
    """What a wrong reference means."""
    if subject.pair != REFERENCE:
        return ""
    return "; f16 is what all are compared with: no other figure of this run can be trusted"


def _unseen(found: Examination) -> tuple[str, str]:
    crashed = (found.problem or "").partition(":")[0] in BROKEN
    return ("fail" if crashed else "inconclusive", f"nodes could not be judged: {found.problem}")


def _missing(found: Examination) -> str:
    names = sorted(found.unknown)
    return f"; not understood and not judged: {', '.join(names)}" if names else ""
