"""``make demo`` on a Mac with stock Metal: green, and 12 pairs of 16 shown as off-device."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metal.conftest import Mac
from pytest_kvquant.results.file import read

DECLARED = "off MTL0, as declared: attention of"


def configured(mac: Mac, **faults: object) -> None:
    variables = mac.variables(**faults)
    lines = "\n".join(f'{name} = """{value}"""' for name, value in variables.items())
    (mac.folder / "kvquant.toml").write_text(f"[environment]\n{lines}\n", encoding="utf-8")


def run(mac: Mac, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", "--kv-matrix", "-p", "no:cacheprovider", *options]
    return subprocess.run(words, cwd=mac.folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_demo_is_green_and_says_what_is_off_the_device(mac: Mac) -> None:
    configured(mac, COPY_MBPS=200)
    done = run(mac, "--kv-json", "kv.json")
    assert done.returncode == 0, done.stdout[-4000:]
    cells = read(mac.folder / "kv.json").cells
    away = [cell.pair for cell in cells if cell.placement and cell.placement.off_device]
    assert len(cells) == 16
    assert sorted(away) == sorted(
        cell.pair for cell in cells if len(set(cell.pair.split("/"))) == 2
    )
    assert len(away) == 12
    assert f"{DECLARED} 12 pairs" in " ".join(done.stdout.split())


def test_a_declared_pair_is_shown_and_never_advised(mac: Mac) -> None:
    configured(mac)
    done = run(mac, "--kv-pairs", "q4_0/q8_0", "--kv-speed", "off", "--kv-chunks", "2",
               "--kv-ctx", "128", "--kv-probe", "off", "-k", "measured or on_device")  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    said = " ".join(done.stdout.split())
    assert f"{DECLARED} 1 pair runs on the CPU" in said
    assert "(q4_0/q8_0" not in said


def test_an_undeclared_pair_fails_in_words(mac: Mac) -> None:
    configured(mac)
    done = run(mac, "--kv-pairs", "q5_0/q8_0", "--kv-speed", "off", "--kv-chunks", "2",
               "--kv-ctx", "128", "--kv-probe", "off", "-k", "on_device")  # fmt: skip
    assert done.returncode == 1
    assert "FLASH_ATTN_EXT of q5_0/q8_0 at head size 128 runs on the CPU" in done.stdout
