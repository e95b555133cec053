"""Child side: numbers of a node, as they were when it was computed.

Operations in place overwrite their input, so outputs of watched nodes are kept until the graph
ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.numerics.arrays import F64, I64, U8

PLAIN = {"f32": np.float32, "f16": np.float16, "i32": np.int32, "i64": np.int64}


class Values:
    """Reads nodes; remembers those that were kept."""

    def __init__(self, codecs: Codecs) -> None:
        self.codecs = codecs
        self._kept: dict[int, U8] = {}

    def keep(self, node: Node) -> None:
        """Remember what a node holds now; of rows that are set, what it had before is gone.

        What computes in place (a clamp of Q, K and V) is a view of its input: those that follow
        read that one's memory as it is now.
        """
        root = node.root
        if node.op == "SET_ROWS":
            self._kept.pop(root.address, None)
        elif root is not node and root.address in self._kept:
            self._kept[root.address] = root.bytes().copy()
        else:
            self._kept[node.address] = node.bytes().copy()

    def overwritten(self, source: Node, by: Node) -> bool:
        """Whether an operation in place has replaced an input that was not kept."""
        return source.root.address not in self._kept and source.data == by.data

    def release(self, node: Node) -> None:
        """Forget what one node held: from now on its memory is read as it is."""
        self._kept.pop(node.address, None)

    def forget(self) -> None:
        """A new graph begins."""
        self._kept.clear()

    def bytes(self, node: Node) -> U8:
        """Its memory from its first element on."""
        root = node.root
        kept = self._kept.get(root.address)
        if kept is not None:
            return kept[node.offset if root is not node else 0 :]
        return node.bytes()

    def plane(self, node: Node, at2: int = 0, at3: int = 0, rows: I64 | None = None) -> U8:
        """Bytes of rows of one plane, shape ``(rows, row bytes)``; rows must be whole."""
        whole: U8 = self._bytes_of(node, [at2], at3, rows)[0]
        return whole

    def _bytes_of(self, node: Node, at2: Sequence[int], at3: int, rows: I64 | None) -> U8:
        """Bytes of rows of some planes, shape ``(planes, rows, row bytes)``, read at once."""
        size, (_, nb1, nb2, nb3) = node.ggml.row_bytes(node.type, node.ne[0]), node.nb
        count = node.ne[1] if rows is None else len(rows)
        if not (count and at2):
            return np.empty((len(at2), count, size), np.uint8)
        row, last = (0, count - 1) if rows is None else (int(rows.min()), int(rows.max()))
        plane = at2[0]
        shape = at2[-1] - plane + 1, last - row + 1, size
        start = at3 * nb3 + plane * nb2 + row * nb1
        if self._kept.get(node.root.address) is not None:
            memory = self.bytes(node)[start:]
        else:
            memory = node.bytes((shape[0] - 1) * nb2 + (shape[1] - 1) * nb1 + size, start)
        view = np.ndarray(shape, np.uint8, np.ascontiguousarray(memory), 0, (nb2, nb1, 1))
        if len(at2) < shape[0]:
            view = view[[one - plane for one in at2]]
        return np.ascontiguousarray(view if rows is None else view[:, rows - row])

    def floats(self, raw: U8, kind: str) -> F64:
        """Rows of bytes as numbers, as the type's own ``to_float`` reads them."""
        if kind in PLAIN:
            return raw.view(PLAIN[kind]).astype(np.float64)
        return self.codecs[kind].floats(raw).astype(np.float64)

    def rows(self, node: Node, at2: int = 0, at3: int = 0, rows: I64 | None = None) -> F64:
        """Rows of one plane as numbers, shape ``(rows, elements)``."""
        return np.asarray(self.planes(node, [at2], at3, rows)[0])

    def planes(self, node: Node, at2: Sequence[int], at3: int = 0, rows: I64 | None = None) -> F64:
        """Rows of some planes as numbers, shape ``(planes, rows, elements)``.

        Args:
            at2: ascending numbers of the planes.
        """
        if node.type in PLAIN and node.nb[0] != np.dtype(PLAIN[node.type]).itemsize:
            whole = self.whole(node)[at3][list(at2)]
            return whole if rows is None else np.asarray(whole[:, rows])
        raw = self._bytes_of(node, at2, at3, rows)
        flat = self.floats(raw.reshape(-1, raw.shape[2]), node.type)
        return flat.reshape(*raw.shape[:2], flat.shape[1])

    def whole(self, node: Node) -> F64:
        """All elements of a node of plain numbers; shape outermost first, 4 dimensions."""
        shape, strides = node.ne[::-1], node.nb[::-1]
        view = np.ndarray(shape, PLAIN[node.type], self.bytes(node), 0, strides)
        whole: F64 = view.astype(np.float64)
        return whole
