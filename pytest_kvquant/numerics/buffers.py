"""What the name of a buffer says about who computes in it."""

from __future__ import annotations


def of_processor(name: str) -> bool:
    """Whether results in the buffer of this name are the processor's.

    Backends of GPUs also give memory to the processor, pinned, so that copies are fast: what the
    processor computes for them lies in ``CUDA_Host`` and the like.

    >>> [of_processor(name) for name in ("CPU", "CPU_Mapped", "CUDA_Host", "CUDA0", "MTL0")]
    [True, True, True, False, False]
    """
    return name.startswith("CPU") or name.endswith("_Host")
