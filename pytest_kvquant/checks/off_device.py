"""Whether a cell's cache is read and written by the device that holds it.

A backend without a kernel for a pair of types leaves it to the CPU: the cache stays on the device,
is copied for every graph, and the figures are those of the CPU's kernels. The census of operations
tells; neither the log nor the place of the cache does.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.operations import ATTENTION, OperationRecord, off_device_text

NAME = "off_device"


def check_off_device(
    operations: Sequence[OperationRecord] | None, device: str, *, gpu: bool, declared: bool
) -> Check:
    """The attention and the writes of a cell run on the device that computes.

    Args:
        operations: ``None`` where they could not be read.
        device: the one that computes.
        gpu: whether it is another than the CPU, and all layers were asked to be on it, with their
            cache.
        declared: whether ``[expect]`` says that they do not.
    """
    if not gpu:
        return fact(NAME, "pass", "the CPU computes on the cache, as asked")
    if not operations:
        return fact(NAME, "inconclusive", "the library does not tell which device computes what")
    if text := off_device_text(operations, device):
        verdict, more = ("pass", ", as [expect] says") if declared else ("fail", "")
        return fact(NAME, verdict, text + more)
    if declared:
        return fact(
            NAME,
            "fail",
            f"[expect] says that it is off {device}, and all of it runs there: remove the entry",
        )
    if not any(one.op == ATTENTION for one in operations):
        return fact(NAME, "inconclusive", "its graph has no FLASH_ATTN_EXT: not looked at")
    return fact(NAME, "pass", f"attention and writes of the cache run on {device}")


@check(NAME, title="where attention runs", test="test_on_device", group="identity",
       needs="census", order=3, unseen="inconclusive")  # fmt: skip
def on_device(subject: Subject) -> Check:
    """Attention on the cache, and writes to it, run on the device that holds it.

    Why: a backend without a kernel for a pair of types leaves it to the CPU. The cache stays on the
    device, so that its place looks right, and is copied for every graph: 8 to 78 times slower.

    A failure means: the figures are those of the CPU's kernels, and the speed is that of copies.
    Use a pair that the device has kernels for, or declare it: ``[expect."K/V"] off_device``.
    """
    placed = subject.cell.placement
    return check_off_device(
        placed.operations if placed is not None else None,
        subject.gpus[0] if subject.gpus else "CPU",
        gpu=subject.all_on_gpu,
        declared=subject.off_device,
    )
