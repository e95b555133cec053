"""Lines for llama.cpp's ``test-backend-ops`` that test the corners which failed.

It tests operations alone, on random values, against the CPU: where it fails too, the kernel can be
debugged without a model; where it does not, the fault needs the model's values, lengths or views.
Parameters are those of ``test_flash_attn_ext`` and ``test_set_rows``: older builds have one type
for K and V (``type_KV``), newer ones two.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.kernels import CornerRecord

OPERATIONS = {
    "attention": "FLASH_ATTN_EXT",
    "write": "SET_ROWS",
    "rope": "ROPE",
    "norm": "RMS_NORM",
    "softmax": "SOFT_MAX",
    "product": "MUL_MAT",
}
"""Operations of a corner that it knows under a name of its own."""


def lines(cells: Iterable[Cell]) -> list[str]:
    """A comment and a command for each failed corner of all cells, each once."""
    found: list[str] = []
    for cell in cells:
        corners = cell.kernels.corners if cell.kernels is not None else ()
        for corner in corners:
            if corner.failed and corner.operation in OPERATIONS:
                found.append(f"# {cell.pair}: {_in_words(corner)}\n{command(corner)}")
    return list(dict.fromkeys(found))


def command(corner: CornerRecord) -> str:
    """The line for the shell."""
    backend = f" -b {corner.backend}" if corner.backend else ""
    filtered = _filter(corner)
    return f"test-backend-ops test -o {OPERATIONS[corner.operation]}{backend}" + (
        f" -p '{filtered}'" if filtered else ""
    )


def _filter(corner: CornerRecord) -> str:
    """A regular expression on the parameters that ``test-backend-ops`` prints."""
    if corner.operation == "attention":
        types = f"type_K={corner.k_type},type_V={corner.v_type}"
        if corner.k_type == corner.v_type:
            types = f"(type_KV={corner.k_type}|{types})"
        softcap = "logit_softcap=0[.]0+,.*" if "softcap" not in corner.mask else ""
        return (
            rf"hsk={corner.head_k},hsv={corner.head_v},.*nr23=\[{corner.group},.*"
            f"nb={corner.tokens},.*{softcap}{types}"
        )
    if corner.operation == "write":
        stored = corner.k_type or corner.v_type
        return f"(type|type_dst)={stored},"
    return ""


def _in_words(corner: CornerRecord) -> str:
    return (
        f"{corner.operation}, {corner.failed} of {corner.nodes} nodes wrong, the worst at "
        f"{corner.ratio:.3g} of its limit; {corner.tokens} query tokens over up to "
        f"{corner.length} cells, {corner.mask or 'no mask'}"
    )
