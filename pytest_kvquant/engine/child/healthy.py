"""Child side: an ``f16/f16`` context whose cache rows are rounded as a cell's types round them.

After each write to the cache the fresh rows are read, sent through the reference quantizer in the
basis that the cell's build uses, and put back; then the graph goes on. The kernels are f16's, the
rounding is the types', a whole chunk comes at once and a token sees its own row rounded: what a
cell of these types must cost on these tokens if every kernel is right.

Each write is a SET_ROWS node named ``cache_k_l<layer>`` or ``cache_v_l<layer>``: windows, several
caches, shared layers and caches without V come by themselves, and the node says which cells it
wrote, contiguous or not.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.cache_rows import read_cells, write_cells
from pytest_kvquant.engine.child.callback import Callback
from pytest_kvquant.engine.child.codec import Basis, Codec, Codecs, rotate
from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.engine.child.nodes import Ggml, Node, RawTensor, TensorPointer, name_of
from pytest_kvquant.numerics.arrays import I64, U8

_CACHE = re.compile(rb"cache_([kv])_l(\d+)")
_ROTATIONS = {"attn_inp_k_rot": "K", "attn_inp_v_rot": "V"}
"""Inputs of upstream's graphs: the matrices by which rows are turned before they are stored."""

THREADS = 8
"""That round a batch's rows while a GPU waits for them. On a CPU nobody does: a process with
threads of its own cannot be copied, and the cores are llama.cpp's."""

KNOWN = 0.7
"""NMSE of a normal source that a basis leaves: more, and it explains nothing."""

_QUERY = re.compile(rb"Qcur[^-]*-(\d+)")
"""Queries by layer, as llama.cpp names them; the last before the write is what attention reads."""

_DOTS_WITH = re.compile(r"i?q\d")
"""Types of K whose product with a query llama.cpp's processor kernel takes in 8 bits: it rounds the
query as q8_0 rounds. Types of forks are not known to."""


class CachePlace(NamedTuple):
    """A side of a layer."""

    layer: int
    side: str


class SideStored(NamedTuple):
    """How a cell stores one side of one layer."""

    type: str
    """ggml name of the cache's own tensor."""
    rotation: int
    """Size of the Hadamard matrix that the build applies to the rows; 1: none."""
    elements: int
    """Of a row as it is stored: more than f16's where heads are padded to whole blocks."""
    on_cpu: bool = True
    """Whether the processor multiplies these rows with queries; of K alone."""


class Learner(Callback):
    """On a context of the cell's own types: how each side of each layer is stored."""

    def __init__(self, library: LoadedLibrary) -> None:
        super().__init__(library)
        self.stored: dict[CachePlace, SideStored] = {}
        self._pending: dict[str, int] = {}

    def wants(self, tensor: RawTensor) -> bool:
        """Products with a rotation matrix, writes, and what reads keys."""
        op = self.ggml.op_name(tensor.op)
        if op == "MUL_MAT" and tensor.src[0]:
            name, _ = name_of(tensor.src[0].contents.name)
            return name in _ROTATIONS or name.startswith("cache_k")
        return op == "FLASH_ATTN_EXT" or is_write(self.ggml, tensor)

    def shown(self, node: Node) -> None:
        """Remember a product's matrix until the side that it turns is written."""
        if node.op == "FLASH_ATTN_EXT":
            self._read_by(node, node.source(1))
            return
        if node.op == "MUL_MAT":
            source = node.source(0)
            assert source is not None
            if source.name not in _ROTATIONS:
                self._read_by(node, source)
                return
            size = int(source.ne[0])
            held = source.bytes(4 * size * size).view(np.float32).reshape(size, size)
            if not np.allclose(held, rotate(np.eye(size, dtype=np.float32), size), atol=1e-5):
                raise BadLibrary(
                    f"{source.name} of {size} x {size} is no Hadamard matrix: in which basis this "
                    "build stores its rows is not known"
                )
            self._pending[_ROTATIONS[source.name]] = size
            return
        place = place_of(node)
        rotation = self._pending.pop(place.side, 1)
        self.stored[place] = SideStored(node.type, rotation, int(node.ne[0]))

    def _read_by(self, node: Node, keys: Node | None) -> None:
        if keys is None or not (found := _CACHE.match(keys.root.name.encode())):
            return
        place = CachePlace(int(found[2]), "K")
        if place in self.stored:
            self.stored[place] = self.stored[place]._replace(on_cpu=node.on_cpu)


class Rounder(Callback):
    """On a context of ``f16/f16``: rounds rows after each write.

    Args:
        codecs: of the library; each finds its basis once, which takes as long as a few chunks.
        stored: how the cell stores each side of each layer; f16 stays as it is.
        heads: KV heads of the model's layers, for heads that are padded.
        draw: another rounding that is as likely, where rows are turned first: by other signs.
    """

    def __init__(
        self,
        library: LoadedLibrary,
        codecs: Codecs,
        stored: Mapping[CachePlace, SideStored],
        heads: Mapping[int, int],
        draw: int = 0,
    ) -> None:
        super().__init__(library)
        self._draw = draw
        self._codecs, self._stored, self._heads = codecs, dict(stored), dict(heads)
        self._pool = ThreadPoolExecutor(THREADS) if library.has_gpu else None
        self.rows = 0
        """Rows rounded so far: none means that nothing was emulated."""
        self._queries: dict[int, int] = {}
        """Where the queries of each layer are, in the graph under way."""

    def wants(self, tensor: RawTensor) -> bool:
        """Writes; queries are computed before them.

        Asked for every node of every graph: by far most are neither, and their names say so.
        """
        name = tensor.name
        if name.startswith(b"Qcur"):
            if found := _QUERY.match(name):
                self._queries[int(found[1])] = ctypes.addressof(tensor)
            return False
        return name.startswith(b"cache_") and is_write(self.ggml, tensor)

    def shown(self, node: Node) -> None:
        """Round the rows that have just been written."""
        place = place_of(node)
        how = self._stored.get(place)
        if how is None:
            raise BadLibrary(f"{node.name} is written here, and not by a cell of other types")
        if how.type == "f16":
            return
        if node.type != "f16":
            raise BadLibrary(f"{node.name} holds {node.type}: rows are rounded in f16 caches only")
        cells = written_cells(node)
        rows = read_cells(node, cells)
        signs = self._signs(place, how, rows.shape[1] // 2) if self._draw else None
        if signs is not None:
            rows = (rows.view(np.float16) * signs).view(np.uint8)
        rows = self._rounded(rows, how, self._heads.get(place.layer, 1))
        if signs is not None:
            rows = (rows.view(np.float16) * signs).view(np.uint8)
        write_cells(node, cells, rows)
        self.rows += len(cells)
        queries = self._queries.pop(place.layer, None) if place.side == "K" else None
        if queries is not None and how.on_cpu and _DOTS_WITH.match(how.type):
            self._round_queries(queries, how)

    def _round_queries(self, address: int, how: SideStored) -> None:
        """What a processor's kernel does to queries before it multiplies them with such keys."""
        node = Node(self.ggml, ctypes.cast(address, TensorPointer))
        width, codec = int(node.ne[0]), self._codecs["q8_0"]
        whole = 4 * node.elements == node.extent
        if node.type != "f32" or not whole or width % codec.block or width % how.rotation:
            return
        rows = node.bytes().view(np.float32).reshape(-1, width)
        turned = codec.through(rotate(np.ascontiguousarray(rows), how.rotation))
        back = np.ascontiguousarray(rotate(turned, how.rotation), np.float32)
        self.ggml.write(node.raw, back.reshape(-1).view(np.uint8))

    def _signs(
        self, place: CachePlace, how: SideStored, elements: int
    ) -> npt.NDArray[np.float16] | None:
        """Signs of the elements of a row before they are turned, which they are back after it.

        ``None``: rows are not turned, and other signs would change no rounding.
        """
        if how.rotation == 1 and basis_of(self._codecs[how.type], how.elements).matrix is None:
            return None
        chance = np.random.default_rng((self._draw, place.layer, ord(place.side)))
        ones = np.ones(elements, np.float16)
        return np.where(chance.random(elements) < 0.5, -ones, ones)

    def _rounded(self, fresh: U8, how: SideStored, heads: int) -> U8:
        """As :func:`rounded`; of many rows each thread takes a part, mostly outside Python."""
        codec, halves = self._codecs[how.type], self._codecs["f16"]
        if self._pool is None or len(fresh) < 2 * THREADS:
            return rounded(fresh, codec, halves, how, heads)
        basis_of(codec, how.elements)  # found once, not by each
        parts = np.array_split(fresh, THREADS)
        found = self._pool.map(lambda rows: rounded(rows, codec, halves, how, heads), parts)
        return np.concatenate(list(found))


def is_write(ggml: Ggml, tensor: RawTensor) -> bool:
    """Whether a node writes K or V rows."""
    return ggml.op_name(tensor.op) == "SET_ROWS" and bool(_CACHE.match(tensor.name))


def place_of(node: Node) -> CachePlace:
    """Which side of which layer a write concerns."""
    found = _CACHE.match(node.name.encode())
    assert found is not None
    return CachePlace(int(found[2]), found[1].decode().upper())


def written_cells(node: Node) -> I64:
    """The rows of the cache that a SET_ROWS node wrote, shape ``(tokens,)``.

    Raises:
        BadLibrary: V is transposed (no flash attention), so that its rows are no rows.
    """
    source, places = node.source(0), node.source(1)
    assert source is not None
    assert places is not None
    if node.ne[0] == 1 or source.ne[2] * source.ne[3] > 1:
        raise BadLibrary(f"{node.name} is stored element by element (no flash attention)")
    kind = np.int64 if places.type == "i64" else np.int32
    return places.bytes().view(kind).astype(np.int64)


def rounded(
    fresh: U8,
    codec: Codec,
    halves: Codec,
    how: SideStored,
    heads: int,
) -> U8:
    """f16 rows sent through the quantizer and brought back to the coordinates of f16.

    Args:
        fresh: shape ``(rows, bytes)``.
        halves: of f16, which it converts several times as fast as NumPy does, to the same bits.
        heads: of a row; only asked for where the cell pads them.

    Raises:
        BadLibrary: padded rows that do not divide into heads.
    """
    values = halves.floats(fresh)
    rows, elements = values.shape
    parts = heads if how.elements != elements else 1
    if elements % parts or how.elements % parts or how.elements < elements:
        raise BadLibrary(f"a row of {how.elements} elements cannot hold {heads} heads of f16's row")
    width, wide = elements // parts, how.elements // parts
    padded = values.reshape(-1, width)
    if wide != width:
        padded = np.pad(padded, ((0, 0), (0, wide - width)))
    back = codec.through(rotate(padded, how.rotation).reshape(rows, -1))
    basis = basis_of(codec, how.elements)
    if basis.matrix is not None:
        back = back.reshape(-1, len(basis.matrix)) @ basis.matrix.T
    plain = rotate(back.reshape(-1, wide), how.rotation)[:, :width]
    return halves.quantize(plain).reshape(rows, -1)


def basis_of(codec: Codec, elements: int) -> Basis:
    """The coordinates in which a type's values come back, over as few elements as explain them.

    Raises:
        BadLibrary: no block of them does.
    """
    unit = codec.block
    while unit <= elements and elements % unit == 0:
        basis = codec.basis(unit)
        if basis.matrix is None or basis.rounding < KNOWN:
            return basis
        unit *= 2
    raise BadLibrary(f"in which basis values of {codec.name} come back is not known")
