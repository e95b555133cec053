"""Child side: whether queries and keys come through a rope, as the model's header has it.

A rope that is there is judged where it is computed; here is seen that none is left out, or turns
twice.
"""

from __future__ import annotations

from pytest_kvquant.engine.child import judge_plain
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.tap import ATTENDS, VIEWS
from pytest_kvquant.engine.child.unjudged import ancestors

KNOWN = judge_plain.UNDERSTOOD | VIEWS | ATTENDS | {"GET_ROWS", "MUL_MAT_ID", "ROPE", "TURBO_WHT"}
"""Operations on the way to attention that turn nothing, and ROPE. Another one may be a rope of a
build's own: it is counted by its name, and nothing is said here."""


def wrongly_turned(node: Node, facts: Facts, layer: int, what: str) -> str:
    """What is wrong with the ropes before a write of keys or before attention; or nothing.

    Args:
        node: its first source is what should be turned.
        what: "keys" or "queries".
    """
    source = node.source(0)
    if facts.turned is None or layer >= len(facts.turned) or source is None:
        return ""
    way = [one.op for one in ancestors(source, until=ATTENDS)]
    ropes, meant = way.count("ROPE"), facts.turned[layer]
    if ropes == meant or not KNOWN.issuperset(way):
        return ""
    found = f"come through {ropes} ropes" if ropes else "come through no rope"
    return (
        f"{what} of layer {layer} {found}, and the model's architecture turns them "
        f"{'once' if meant else 'nowhere'}"
    )
