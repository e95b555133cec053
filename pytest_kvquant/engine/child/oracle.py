"""Child side: watches a live context and judges what its graphs compute.

Each operation between the projections and the output projection of sampled layers is held against
exact arithmetic on its own inputs; positions, masks and parameters against what the context was
told and what the model's header says. An operation that is not understood is counted by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pytest_kvquant.engine.child import (
    judge_attention,
    judge_plain,
    judge_rope,
    judge_write,
)
from pytest_kvquant.engine.child.attention_inputs import Inputs, parameters
from pytest_kvquant.engine.child.codec import hadamard
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.finding import Corner, NodeFinding
from pytest_kvquant.engine.child.judge_mask import judge_mask
from pytest_kvquant.engine.child.ledger import Ledger
from pytest_kvquant.engine.child.mirror import Mirrors, Placed
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.tap import ATTENDS
from pytest_kvquant.engine.child.turned import wrongly_turned
from pytest_kvquant.engine.child.unjudged import CACHES, Unjudged
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.engine.child.ways import (
    ROTATIONS,
    Scaled,
    cache_of,
    holder_of,
    mask_made_of,
    scaled_before,
    scored_before,
    writes_cache,
)
from pytest_kvquant.numerics.arrays import I64, distinct

COMPRESSED = "compress"
"""In names of states that stand for several tokens, and are turned for positions of their own."""


class Oracle:
    """Judges the nodes that a tap shows.

    Args:
        rows: query rows of an attention node that are looked at, about.
    """

    def __init__(
        self, values: Values, facts: Facts, mirrors: Mirrors, *, seed: int, rows: int = 6
    ) -> None:
        self.values, self.facts, self.mirrors = values, facts, mirrors
        self.ledger = Ledger()
        self.unknown: Counter[str] = Counter()
        """Operations on which attention rests and that were not understood, by name; and what could
        not be compared with the header."""
        self._unjudged = Unjudged(self.unknown)
        self.judging = True
        self._rows = rows
        self._rng = np.random.default_rng(seed)
        self._placed: dict[int, Placed] = {}
        self._turned: dict[int, list[tuple[str, I64]]] = {}
        self._cells: dict[int, I64] = {}
        self._caches: dict[int, int] = {}
        self._homes: dict[int, tuple[str, bool]] = {}
        """Buffer of each layer's cache, and whether it is the processor's."""

    def begins(self) -> None:
        """A graph begins."""
        self.values.forget()
        self._unjudged.begins()
        self._placed.clear()
        self._turned.clear()
        self._caches.clear()

    def ahead(self, node: Node, layer: int) -> None:
        """Follow which token goes to which cell; look at masks before they are used."""
        if writes_cache(node):
            self._follow(node, layer)
        elif node.op in ATTENDS and self.judging:
            self._look_at_mask(node, layer)
        elif node.op == "ROPE" and (root := cache_of(node)) is not None:
            self.values.keep(root)  # turned in place

    def computed(self, node: Node, layer: int) -> None:
        """Judge a node, and keep what it holds for those that follow."""
        if not node.elements:
            return  # of a batch that only fills, the last layer computes no row
        if self.judging:
            found = self.judge(node, layer)
            if found is None:
                self._unjudged.add(node)
            else:
                self.ledger.add(found, node, self.values)
            if node.op in ATTENDS or writes_cache(node):
                self._unjudged.rests(node)
        self.values.keep(node)

    def leaves(self, node: Node) -> None:
        """The output projection of a layer comes next."""
        self._unjudged.rests(node)

    def judge(self, node: Node, layer: int) -> Sequence[NodeFinding] | None:
        """Findings about a computed node; ``None`` where it is not understood."""
        handler = getattr(self, f"_judge_{node.op.lower()}", None)
        if handler is not None:
            found: Sequence[NodeFinding] | None = handler(node, layer)
            return found
        if node.op in judge_plain.UNDERSTOOD:
            if node.op == "CPY" and node.root.name.startswith(CACHES):
                return judge_write.judge_copy(node, self.values, self._rng, layer)
            if node.root.name.startswith("cache_") and not node.root.name.startswith(CACHES):
                return []  # a recurrent state
            return judge_plain.judge(node, self.values, layer)
        return [] if node.op == "MUL_MAT_ID" else None  # a projection

    def _judge_flash_attn_ext(self, node: Node, layer: int) -> Sequence[NodeFinding]:
        windowed = bool(self.facts.window(layer))
        found = judge_attention.judge(
            node, self.values, self._rng, layer, self._rows, windowed=windowed
        )
        said, before = parameters(node), scaled_before(Inputs.of(node).q)
        scale = None if before is None else said.scale * before
        scored = Scaled(scale, said.softcap)
        found += self._against_header(node, layer, found[0].corner, scored, said.bias)
        home, of_processor = self._homes.get(layer, (node.backend, node.on_cpu))
        if node.on_cpu and not of_processor:
            corner = found[0].corner._replace(operation="placement")
            text = (
                f"attention {corner.k_type}/{corner.v_type} of layer {layer}, head size "
                f"{corner.head_k}, {corner.tokens} query tokens, runs on {node.backend}, and the "
                f"cache lies in {home}: that device has no kernel for it"
            )
            found.append(NodeFinding(corner, node.name, layer, 2, 1, 0, text))
        return found

    def _against_header(
        self, node: Node, layer: int, corner: Corner, scored: Scaled, bias: float
    ) -> list[NodeFinding]:
        """Parameters of an attention that are not the header's; names what cannot be compared."""
        self.unknown.update(self.facts.unsaid(scored.scale))
        sinks = node.source(4 if node.op == "FLASH_ATTN_EXT" else 2)
        wrong = self.facts.differing(*scored, bias)
        wrong = wrong or self.facts.wrong_sinks(layer, sinks is not None)
        corner = corner._replace(operation="parameters")
        text = f"attention of layer {layer}: {wrong}"
        if not wrong:
            wrong = text = wrongly_turned(node, self.facts, layer, "queries")
        return [NodeFinding(corner, node.name, layer, 2, 1, 0, text)] if wrong else []

    def _judge_set_rows(self, node: Node, layer: int) -> Sequence[NodeFinding] | None:
        if not writes_cache(node):
            return []
        return judge_write.judge(node, self.values, self._rng, layer)

    def _judge_rope(self, node: Node, layer: int) -> Sequence[NodeFinding]:
        rows = distinct([0, node.ne[2] - 1, *self._rng.integers(node.ne[2], size=self._rows)])
        positions = node.source(1)
        assert positions is not None
        shift = cache_of(node) is not None
        given = self.values.plane(positions)[0].view(np.int32).astype(np.int64)
        if shift:
            return self._judge_shift(node, layer, given, rows)
        if COMPRESSED not in node.name:
            self._turned.setdefault(layer, []).append((node.name, given))
        known = self.facts.rope(layer)
        if known is None:
            self.unknown["rope against the header"] += 1
        return judge_rope.judge(node, self.values, layer, None, known, rows)

    def _judge_shift(self, node: Node, layer: int, given: I64, rows: I64) -> Sequence[NodeFinding]:
        mirror = self.mirrors.by_layer.get(layer)
        live = np.flatnonzero(given)
        rows = distinct([*rows, *self._rng.choice(live, min(4, len(live)))])
        known = self.facts.rope_of_shift(layer)
        found = list(judge_rope.judge(node, self.values, layer, None, known, rows))
        if mirror is not None and len(given) <= len(mirror.moved):
            owned = mirror.owners[: len(given)] > 0
            wrong = np.flatnonzero(owned & (mirror.moved[: len(given)] != given))
            if wrong.size:
                cell = int(wrong[0])
                text = (
                    f"context shift of layer {layer}: cell {cell} is turned by {given[cell]} "
                    f"positions and was moved by {mirror.moved[cell]}"
                )
                corner = Corner("parameters", tokens=node.ne[2], backend=node.backend)
                found.append(NodeFinding(corner, node.name, layer, 2, 1, 0, text))
            mirror.turned()
        return found

    def _judge_turbo_wht(self, node: Node, layer: int) -> Sequence[NodeFinding] | None:
        """A rotation before quantization: the quantizer's own basis says what it must be."""
        forward = int(node.integers[0]) == 0
        sides = self.facts.rotated  # queries are turned as K is, results turned back as V is
        codec = self.values.codecs[sides[0 if forward else -1]] if sides else None
        groups = [int(node.integers[place]) for place in (1, 4)]  # builds keep it here or there
        size = next((one for one in groups if one > 1), 128)
        if codec is None or node.ne[0] % size:
            return None
        matrix = codec.basis(size).matrix
        if matrix is None:
            return None
        turned = np.asarray(matrix, np.float64)
        factor = node.source(1)
        scales = np.ones(size) if factor is None else self.values.rows(factor)[0][:size]
        turned = scales[:, None] * turned if forward else turned.T * scales
        return judge_rope.judge_rotation(node, self.values, layer, turned, self._some_rows(node))

    def _judge_mul_mat(self, node: Node, layer: int) -> Sequence[NodeFinding] | None:
        left = node.source(0)
        assert left is not None
        if left.name in ROTATIONS:
            rows = self._some_rows(node)
            return judge_rope.judge_rotation(
                node, self.values, layer, hadamard(left.ne[0]).astype(np.float64), rows
            )
        if left.op == "NONE" and not left.root.name.startswith("cache_"):
            return []  # a projection
        return judge_plain.judge_product(node, self.values, self._rng, layer, self._rows)

    def _judge_soft_max(self, node: Node, layer: int) -> Sequence[NodeFinding] | None:
        found = judge_plain.judge_softmax(node, self.values, self._rng, layer, self._rows)
        scored = scored_before(node.source(0))
        if not found or scored is None:
            if node.source(1) is not None:  # a router's has no mask
                self.unknown.update(self.facts.unsaid(None))
            return found
        own, bias = (float(one) for one in node.floats[:2])
        if scored.scale is not None:
            scored = scored._replace(scale=scored.scale * own)
        return [*found, *self._against_header(node, layer, found[0].corner, scored, bias)]

    def _some_rows(self, node: Node) -> I64:
        rows = node.elements // node.ne[0]
        return distinct([0, rows - 1, *self._rng.integers(rows, size=4 * self._rows)])

    def _follow(self, node: Node, layer: int) -> None:
        places, root = node.source(1), node.root
        self._homes[layer] = root.backend, root.on_cpu
        mirror = self.mirrors.by_layer.get(layer)
        if places is None or mirror is None:
            return
        side = layer if root.name.startswith("cache_k") else -1 - layer
        if self._caches.setdefault(side, root.address) != root.address:
            return  # a further cache of the layer, as indexers have
        kind = np.int64 if places.type == "i64" else np.int32
        cells = self.values.plane(places)[0].view(kind).astype(np.int64)
        if self.judging:
            judge_write.blank(node, cells)
        corner = Corner("parameters", tokens=len(cells), backend=node.backend)
        if root.name.startswith("cache_k"):
            self._cells[layer] = cells
            try:
                self._placed[layer] = mirror.written(cells, root.ne[1], root.ne[2])
            except LookupError as error:
                self.ledger.add([NodeFinding(corner, node.name, layer, 2, 1, 0, str(error))], node)
                return
            self._check_positions(node, layer, corner, self._placed[layer])
            if self.judging and (text := wrongly_turned(node, self.facts, layer, "keys")):
                self.ledger.add([NodeFinding(corner, node.name, layer, 2, 1, 0, text)], node)
        elif len(cells) == len(self._cells.get(layer, ())) and (cells != self._cells[layer]).any():
            text = f"V of layer {layer} is written to other cells than its K"
            self.ledger.add([NodeFinding(corner, node.name, layer, 2, 1, 0, text)], node)

    def _check_positions(self, node: Node, layer: int, corner: Corner, placed: Placed) -> None:
        meant = placed.positions
        for name, given in self._turned.get(layer, ()):
            found = given[: len(meant)]
            if len(given) % len(meant) == 0 and (found != meant).any():
                at = int(np.flatnonzero(found != meant)[0])
                text = (
                    f"rope of {name}: token {at} is at position {meant[at]} and is turned for "
                    f"position {found[at]}"
                )
                self.ledger.add([NodeFinding(corner, node.name, layer, 2, 1, 0, text)], node)

    def _look_at_mask(self, node: Node, layer: int) -> None:
        holder = holder_of(node, layer)
        mirror, placed = self.mirrors.by_layer.get(holder), self._placed.get(holder)
        if mirror is None or placed is None:
            return
        if holder != layer:  # which writes nothing itself
            corner = Corner("parameters", tokens=len(placed.positions), backend=node.backend)
            self._check_positions(node, layer, corner, placed)
        if (made_of := mask_made_of(node)) is not None:
            self.unknown[f"{made_of} of a mask"] += 1  # an indexer's choice of cells
            return
        windows, chunked = self.facts.windows(layer), self.facts.chunked
        found = judge_mask(node, self.values, mirror, placed, windows, layer, chunked=chunked)
        if found is None:
            self.unknown["window of a layer"] += 1
        else:
            self.ledger.add(found, node)
