"""Each feature of each member matters: the oracle without it takes the healthy build for wrong.

The oracle's arithmetic is robbed of one feature; what a kernel that forgot it would compute is
then just what the oracle expects, and the two differ by as much.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run

from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.session.run import Session
from pytest_kvquant.session.zoo import ZooPlace
from pytest_kvquant.zoo.members import ALL, by_name

ATTEND = """
from pytest_kvquant.engine.child import judge_attention
from pytest_kvquant.numerics import attention

def robbed(attend):
    def without(q, k, v, mask, how, **more):
        {change}
        return attend(q, k, v, mask, how, **more)
    return without

attention.attend = robbed(attention.attend)
judge_attention.attend_in_halves = robbed(judge_attention.attend_in_halves)
"""

ROPE = """
from pytest_kvquant.engine.child import judge_rope
_turn = judge_rope.turn

def turn(values, rope, positions, factors=None, **more):
    {change}
    return _turn(values, rope, positions, factors, **more)

judge_rope.turn = turn
"""

GROUPING = """
from pytest_kvquant.engine.child import attention_inputs
attention_inputs._shared = lambda head, heads, shared: head % shared
"""

WINDOW = """
        mask = mask.copy()
        for row in mask:
            seen = np.flatnonzero(row > -np.inf)
            row[:seen[0] if len(seen) else 0] = 0
"""

WITHOUT = {
    "softcap": ATTEND.format(change="how = how._replace(softcap=0.0)"),
    "sinks": ATTEND.format(change="how = how._replace(sink=None)"),
    "alibi": ATTEND.format(change="how = how._replace(slope=0.0)"),
    "scale": ATTEND.format(change="how = how._replace(scale=how.scale / 16)"),
    "window": ATTEND.format(change=WINDOW.strip()),
    "grouping": GROUPING,
    "rope": ROPE.format(change="return values.copy()"),
    "partial rope": ROPE.format(change="rope = rope._replace(dims=values.shape[-1])"),
    "rope factors": ROPE.format(change="factors = None"),
    "yarn": ROPE.format(change="rope = rope._replace(ext=0.0, scale=1.0)"),
}
"""What the oracle forgets."""

TAIL = ATTEND.format(change="q, k = q[:, :-16], k[:, :-16]")
"""The last 16 elements of every head."""

NOT_OF_ATTENTION = {
    "layers without rope", "q and k norm", "q and k bias", "temperature", "two head sizes",
    "shared KV layers", "latent attention", "gated attention", "recurrent layers", "experts",
    "chunked window",
}  # fmt: skip
"""Features around attention: they decide what it is handed, or whether there is any."""

QUICK = {("softcap", "gemma2-256"), ("sinks", "gpt-oss-64"), ("grouping", "mimo2-192")}


def cases() -> list[object]:
    """Every member with every feature that it has, and its heads' ends."""
    found = []
    for member in ALL:
        features = [feature for feature in member.features if feature in WITHOUT]
        if member.group == member_heads(member.header) and "grouping" in features:
            features.remove("grouping")  # one KV head serves all: there is no other to take
        for feature in [*features, "head size"]:
            quick = (feature, member.name) in QUICK
            marks = () if quick else pytest.mark.slow
            found.append(pytest.param(member.name, feature, marks=marks))
    return found


def member_heads(header: object) -> int:
    assert isinstance(header, dict)
    heads = header["attention.head_count"]
    kv_heads = header["attention.head_count_kv"]
    most = max(kv_heads) if isinstance(kv_heads, list) else kv_heads
    return int(heads) if most == 1 else 0


def started(tmp_path: Path, member: str, hook: str) -> Session:
    session: Session = run.start(
        tmp_path, pairs=(), hook=hook, zoo=member, ctx=64, chunks=1, threads=1, coverage="off"
    )
    return session


def test_every_member_has_features_that_can_be_left_out() -> None:
    for member in ALL:
        assert set(member.features) & set(WITHOUT), member.name
        assert set(member.features) <= set(WITHOUT) | NOT_OF_ATTENTION, member.name


@pytest.mark.parametrize(("member", "feature"), cases())
def test_leaving_it_out_is_seen(member: str, feature: str, tmp_path: Path) -> None:
    session = started(tmp_path, member, WITHOUT.get(feature, TAIL))
    found = session.zoo.measure(ZooPlace(member, REFERENCE))
    assert found.verdict == "fail", f"{feature}: {found.text or 'all nodes right'}"


@pytest.mark.slow
@pytest.mark.parametrize("member", [member.name for member in ALL])
def test_a_healthy_build_is_right(member: str, tmp_path: Path) -> None:
    session = started(tmp_path, member, "")
    found = session.zoo.measure(ZooPlace(member, REFERENCE))
    assert found.verdict in ("pass", "inconclusive"), found.text
    assert by_name(member).name == member
