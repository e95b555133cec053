"""The same tokens in another batch shape, and after save and restore."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import FLOOR_FACTOR, fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.results.cell import Check, NoiseFloor, TwoPaths

BUDGET_SHARE = 0.1
"""Two shapes of one cell may differ by this share of its KL budget: a rounding that falls the
other way moves a quantized value by a whole step, which f16 does not know."""


PATHS_LIMIT = 2e-3
"""Nats: fifty times what f16 shows between one token and 128 at once on a CPU (3.8e-5), and still a
change of the perplexity of at most 6 % (Pinsker)."""


def check_shapes(
    kl: Mapping[str, float], control: Mapping[str, float], budget: float
) -> tuple[Check, Check]:
    """The same tokens in another batch shape, and after save and restore, give the same logits.

    Args:
        kl: mean KL between shapes of the cell, by shape; ``restored`` is the one after restore.
        control: the same of f16.
        budget: the cell's budget for mean KL.
    """
    limits = {
        name: max(FLOOR_FACTOR * control.get(name, 0.0), BUDGET_SHARE * budget) for name in kl
    }
    # NaN is a disagreement: hence not (kl <= limit).
    wrong = [name for name in kl if name != "restored" and not kl[name] <= limits[name]]
    worst = max(
        (name for name in kl if name != "restored"), key=lambda name: kl[name], default=None
    )
    shapes = fact(
        "shapes",
        "fail" if wrong else "pass",
        _disagreement(wrong, kl, limits) if wrong else "every batch shape gives the same logits",
        figure=kl[worst] if worst else None,
        limit=limits[worst] if worst else None,
    )
    same = kl["restored"] <= limits["restored"]
    restore = fact(
        "restore",
        "pass" if same else "fail",
        "a saved and restored sequence goes on as if uninterrupted"
        if same
        else f"after save and restore the logits differ by KL {kl['restored']:.2g}, allowed are "
        f"{limits['restored']:.2g}: the serialized state is not the whole cache",
        figure=kl["restored"],
        limit=limits["restored"],
    )
    return shapes, restore


PARTED = 2.0
"""Times what f16 shows between a chunk at once and in parts: a model that turns the rounding of a
sum into more than others does so in every batch size."""

MOST_APART = 1.5e-2
"""Nats: no model is so sensitive that more is rounding."""


def check_reference_paths(
    paths: TwoPaths | None, floor: float, parted: float = 0.0
) -> Check | None:
    """f16 must say the same of the same tokens, one at a time and at once; ``None``: it does.

    Every pair is compared with f16 path by path, so that a fault of f16's own decode path would be
    taken for the references.

    Args:
        parted: KL of f16 between a chunk at once and in parts, nats.
    """
    limit = max(FLOOR_FACTOR * floor, PATHS_LIMIT, min(MOST_APART, PARTED * parted))
    # NaN is a disagreement: hence not (kl <= limit).
    if paths is None or paths.kl <= limit:
        return None
    return fact(
        "shapes",
        "fail",
        f"f16 itself does not agree with itself: one token at a time it has a perplexity of "
        f"{paths.ppl_decode:,.4g} where the same tokens at once have {paths.ppl_prefill:,.4g} "
        f"(KL {paths.kl:.2g}, allowed {limit:.2g}). No other figure of the decode path can be "
        "trusted: f16's kernel for one token is wrong, or sequences do not begin alike",
        figure=paths.kl,
        limit=limit,
    )


def _reference_paths(found: NoiseFloor) -> Check | None:
    return check_reference_paths(found.paths, found.kl, found.shapes.get("parted", 0.0))


def _disagreement(wrong: list[str], kl: Mapping[str, float], limits: Mapping[str, float]) -> str:
    parts = [f"{name}: KL {kl[name]:.2g}, allowed {limits[name]:.2g}" for name in wrong]
    return f"the same tokens give other logits in another batch shape ({'; '.join(parts)})"


@check("shapes", title="batch shapes", test="test_batch_shapes", group="paths",
       needs="shapes", order=1)  # fmt: skip
def shapes(subject: Subject) -> Check | None:
    """The same tokens give the same logits in every batch shape.

    Why: builds have been right alone and wrong with four sequences, or wrong only where n_ubatch is
    smaller than n_batch.

    A failure means: the shape that the text names takes another kernel, and that one is wrong.
    """
    if not subject.shapes:
        return None
    assert subject.floor is not None
    own = subject.pair == REFERENCE and subject.floor.paths is not None
    wrong = _reference_paths(subject.floor) if own else None
    return wrong or _judged(subject)[0]


@check("restore", title="save and restore", test="test_save_restore", group="paths",
       needs="shapes", order=2)  # fmt: skip
def restore(subject: Subject) -> Check | None:
    """A saved and restored sequence goes on as if uninterrupted.

    Why: servers keep prompts by saving a sequence. A state with padded rows has asserted.

    A failure means: what is serialized is not the whole cache, or not read back as written.
    """
    return _judged(subject)[1] if subject.shapes else None


def _judged(subject: Subject) -> tuple[Check, Check]:
    assert subject.floor is not None
    scale = subject.budgets["kl_mean"] if subject.kl_scale is None else subject.kl_scale
    return check_shapes(subject.shapes, subject.floor.shapes, scale)
