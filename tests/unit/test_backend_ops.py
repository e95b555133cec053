"""Lines for test-backend-ops: they pick the cases that its own parameter strings describe."""

from __future__ import annotations

import re

import msgspec

from pytest_kvquant.report.backend_ops import command, lines
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.kernels import CornerRecord, Examination

CORNER = CornerRecord(
    operation="attention", k_type="q8_0", v_type="q8_0", head_k=128, head_v=128, group=4, tokens=1,
    length=512, mask="causal", backend="CUDA0", nodes=40, failed=3, ratio=7.0, error=1e-3,
    worst=1e-2,
)  # fmt: skip
OLD = (
    "hsk=128,hsv=128,nh=4,nr23=[4,1],kv=512,nb=1,mask=1,sinks=0,max_bias=0.000000,"
    "logit_softcap=0.000000,prec=f32,type_KV=q8_0,permute=[0,1,2,3]"
)
NEW = OLD.replace("type_KV=q8_0", "type_K=q8_0,type_V=q8_0") + ",kv_view=0"


def pattern(corner: CornerRecord) -> str:
    return command(corner).partition("-p '")[2].rstrip("'")


def test_the_filter_finds_the_case_in_old_and_new_builds_and_no_other() -> None:
    for text in (OLD, NEW):
        assert re.search(pattern(CORNER), text)
        for was, now in (("nb=1,", "nb=3,"), ("hsk=128", "hsk=64"), ("nr23=[4", "nr23=[1"),
                         ("q8_0", "q4_0"), ("softcap=0.0", "softcap=10.0")):  # fmt: skip
            assert not re.search(pattern(CORNER), text.replace(was, now)), now


def test_two_types_are_asked_for_where_builds_have_two() -> None:
    mixed = msgspec.structs.replace(CORNER, v_type="turbo4")
    assert re.search(pattern(mixed), NEW.replace("type_V=q8_0", "type_V=turbo4"))
    assert not re.search(pattern(mixed), OLD)


def test_only_what_failed_is_printed_and_each_line_once() -> None:
    fine = msgspec.structs.replace(CORNER, failed=0)
    write = msgspec.structs.replace(CORNER, operation="write", v_type="")
    cell = Cell(
        pair="q8_0/q8_0",
        verdict="fail",
        kernels=Examination(level="standard", corners=(CORNER, fine, write, CORNER)),
    )
    found = lines([cell])
    assert len(found) == 2
    assert "test-backend-ops test -o FLASH_ATTN_EXT -b CUDA0 -p " in found[0]
    assert "3 of 40 nodes wrong" in found[0]
    assert "-o SET_ROWS" in found[1]
