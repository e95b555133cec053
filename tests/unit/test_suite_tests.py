"""Which tests a run of everything would run: what is left out of them is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from pytest_kvquant.session.run import Session
from pytest_kvquant.session.start import suite_tests


@pytest.mark.parametrize("on", [True, False])
def test_speed_tests_are_of_the_suite_where_speed_is_on(on: bool) -> None:
    """They are made from declarations: no source names them."""
    speed = SimpleNamespace(on=on, ceiling_on=on)
    run = cast(Session, SimpleNamespace(speed=speed, zoo=SimpleNamespace(plan=())))
    found = suite_tests(run)
    assert ("test_prefill_speed" in found) is on
    assert ("test_decode_speed" in found) is on
    assert "test_kl_divergence" in found
