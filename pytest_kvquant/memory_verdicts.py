"""Memory as test outcomes: bytes per token, and the context that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_kvquant.report import format

if TYPE_CHECKING:
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.session import Session

ROUNDING = 1e-9


class CellMemory:
    """The memory of one cell, as a test sees it."""

    def __init__(self, session: Session, pair: Pair, node: pytest.Item) -> None:
        self._session, self._pair, self._node = session, pair, node

    def check_footprint(self) -> None:
        """Fail where a token takes more bytes than its floor on the compression allows.

        Without a configured floor that is what the model's geometry says, to the byte.
        """
        __tracebackhide__ = True
        cell = self._session.measure(self._pair)
        census = cell.census
        if census is None:
            pytest.skip(f"{self._pair} was not measured: {cell.verdict}")
        held = census.bytes_per_token
        if not held:
            pytest.skip(f"{self._pair}: bytes per token are not known: {census.text}")
        compression = census.expected_bytes_per_token * census.compression / held
        configured = self._session.speed.floors(self._pair, 0).compression
        floor = census.compression if configured is None else configured
        self._node.user_properties += [
            ("kv_bytes_per_token", held),
            ("kv_compression", compression),
        ]
        if compression >= floor * (1 - ROUNDING):
            return
        buffers = cell.placement.kv_buffers if cell.placement else {}
        allocated = ", ".join(f"{name} {size:g} MiB" for name, size in buffers.items())
        pytest.fail(
            f"{self._pair}: a token takes {held:,g} bytes, {compression:.3f} times less than f16; "
            f"the floor is {floor:.3f} times\n"
            f"  expected  {census.expected_bytes_per_token:,} bytes by the model's geometry\n"
            f"  census    {census.text}\n"
            f"  allocated {allocated or 'the library does not say'}",
            pytrace=False,
        )

    def check_ceiling(self) -> None:
        """Fail where no context works, or only smaller ones than the floor."""
        __tracebackhide__ = True
        found = self._session.speed.ceiling(self._pair)
        self._node.user_properties.append(("kv_ceiling", found.tokens))
        floor = self._session.speed.floors(self._pair, 0).context or 1
        if found.tokens >= floor:
            return
        tried = "\n".join(
            f"  {one.context:>9,}  {one.outcome} ({format.seconds(one.seconds)}) {one.text}"
            for one in found.attempts
        )
        least = f"; the floor is {floor:,}" if floor > 1 else ""
        pytest.fail(f"{self._pair}: {found.text}{least}\n{tried}", pytrace=False)
