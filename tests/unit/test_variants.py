"""One build under several environments."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_kvquant.checks import registry
from pytest_kvquant.cli.main import main
from pytest_kvquant.config.resolver import resolve
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.report.variants import lines
from pytest_kvquant.results.file import read

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "results" / "schema-1.json"

TOML = """
[environment]
TURBO_LAYER_ADAPTIVE = "0"
[variants.dense]
TURBO_SPARSE_V = "0"
[variants.adaptive]
TURBO_LAYER_ADAPTIVE = "1"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kvquant.toml").write_text(TOML)
    return tmp_path


def environment(folder: Path, variant: str | None) -> dict[str, str]:
    return resolve(
        {"variant": variant}, config=None, root=folder, budgets=registry.budget_units()
    ).environment


def test_a_variant_lies_over_the_environment(folder: Path) -> None:
    assert environment(folder, None) == {"TURBO_LAYER_ADAPTIVE": "0"}
    assert environment(folder, "dense") == {"TURBO_LAYER_ADAPTIVE": "0", "TURBO_SPARSE_V": "0"}
    assert environment(folder, "adaptive") == {"TURBO_LAYER_ADAPTIVE": "1"}


def test_an_unknown_variant_is_told_which_there_are(folder: Path) -> None:
    with pytest.raises(SettingsError, match="it has dense, adaptive"):
        environment(folder, "sparse")


def test_nothing_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kvquant.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["variants", "out"]) == 2
    assert "no table [variants.NAME]" in capsys.readouterr().err


def test_what_moved_is_said_pair_by_pair_and_what_did_not_in_a_line() -> None:
    plain = read(GOLDEN)
    first, second, *_ = plain.cells
    assert second.quality is not None
    prefill = second.quality.prefill
    moved = replace(
        second,
        verdict="fail",
        quality=replace(second.quality, prefill=replace(prefill, kl_mean=prefill.kl_mean + 0.002)),
    )
    dense = replace(plain, cells=(first, moved))
    text = "\n".join(lines({"plain": plain, "dense": dense}, {"dense": {"TURBO_SPARSE_V": "0"}}))
    assert "plain → dense (TURBO_SPARSE_V=0)" in text
    assert f"  {second.pair}: " in text
    assert "(+0.002 nats)" in text
    assert f"as before: {first.pair}" in text
    back = "\n".join(lines({"dense": replace(dense, cells=(first, moved)),
                            "less": replace(plain, cells=(first,), speed=())}, {}))  # fmt: skip
    assert f"{second.pair}: not measured under less" in back
