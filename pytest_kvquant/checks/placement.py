"""Where the KV cache lies, as the library's log says, and whether that was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact, unseen
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import CacheSize, Check, Placement

_SPLITS = r"graph(?: splits =|[^:\n]*: nodes = [^,\n]+, splits =) (\d+)"


def placement(log: str) -> Placement:
    """Where the KV cache lies and how often the graph changes device, as the library's log says.

    The lines are llama.cpp's own (``llama_kv_cache: CPU KV buffer size = 2.00 MiB``, ``size = 2.00
    MiB (512 cells, 4 layers, 1/1 seqs)`` with the number of streams of so many cells each,
    ``graph splits = 2``, later ``graph: nodes = 178, splits = 2`` or, where prefill and decode
    differ, ``graph (pp bs=512, tg bs=4): nodes = 154 / 154, splits = 41 / 2``: that of prefill is
    taken); what it does not print stays unknown.
    """
    buffers: dict[str, float] = {}
    for device, size in re.findall(r"(\S+) KV buffer size\s*=\s*([\d.]+) MiB", log):
        buffers[device] = buffers.get(device, 0.0) + float(size)
    splits = re.findall(_SPLITS, log)
    sizes = re.findall(r"\(\s*(\d+) cells,\s*(\d+) layers,\s*\d+/(\d+) seqs\)", log)
    return Placement(
        kv_buffers=buffers,
        graph_splits=int(splits[-1]) if splits else None,
        caches=tuple(
            CacheSize(cells=int(cells) * int(streams), layers=int(layers))
            for cells, layers, streams in sizes
        ),
    )


def check_placement(
    found: Placement, gpus: Iterable[str], gpu_layers: int, *, kv_offload: bool = True
) -> Check:
    """Asked for a GPU, the KV cache must not be on the CPU; kept off it, it must be there."""
    wanted = list(gpus) if gpu_layers != 0 else []
    where = ", ".join(f"{device} {size:g} MiB" for device, size in found.kv_buffers.items())
    splits = f"; {found.graph_splits} graph splits" if found.graph_splits is not None else ""
    if not found.kv_buffers:
        return fact("placement", "inconclusive", "the library does not say where the cache lies")
    on_cpu = [device for device in found.kv_buffers if device.startswith("CPU")]
    if wanted and not kv_offload:
        if len(on_cpu) < len(found.kv_buffers):
            text = f"the KV cache is on {where}, although --no-kv-offload was asked for"
            return fact("placement", "fail", text)
        return fact("placement", "pass", f"KV cache on {where}, as asked{splits}")
    if wanted and on_cpu and gpu_layers < 0:
        return fact(
            "placement",
            "fail",
            f"the KV cache is on the CPU ({where}) although this build has {', '.join(wanted)}; "
            "was the device lost, or did its kernels fail to compile? (--kv-devices CPU asks for "
            "the CPU; without layers on it, a GPU still takes the large products)",
        )
    return fact("placement", "pass", f"KV cache on {where}{splits}")


@check("placement", title="placement", test="test_placement", group="identity",
       needs="census", order=2, unseen="inconclusive")  # fmt: skip
def where_it_lies(subject: Subject) -> Check:
    """The KV cache lies on the device that was asked for.

    Why: where shaders fail to compile or a driver is lost, llama.cpp goes on with the CPU, and
    every speed is that of another device.

    A failure means: the figures are not of the device that you meant to measure. The build's log
    says which device it has found.
    """
    if subject.cell.placement is None:
        return unseen("placement", "where the cache lies")
    return check_placement(
        subject.cell.placement,
        subject.gpus,
        subject.gpu_layers,
        kv_offload=subject.kv_offload,
    )
