from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pytest_kvquant.machine import memory

UNIFIED, OLDER = "sys/fs/cgroup", "sys/fs/cgroup/memory"


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """What Linux shows of control groups, below ``root``."""
    for path, text in {"proc/self/cgroup": groups, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def unified(limit: str, used: int, cached: int) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon {used - cached}\ninactive_anon 7\ninactive_file {cached}\n",
    }


def older(limit: int, used: int, cached: int) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": f"cache {cached}\ninactive_file 3\ntotal_inactive_file {cached}\n",
    }


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("0::/", below(UNIFIED, unified("1000000", 400_000, 50_000)), 650_000),
        (
            "0::/pod/box",
            below(f"{UNIFIED}/pod", unified("1000000", 900_000, 0))
            | below(f"{UNIFIED}/pod/box", unified("500000", 100_000, 0)),
            100_000,
        ),
        (
            "0::/pod/box",
            below(f"{UNIFIED}/pod", unified("1000000", 200_000, 0))
            | below(f"{UNIFIED}/pod/box", unified("max", 100_000, 0)),
            800_000,
        ),
        ("0::/", below(UNIFIED, unified("1000", 2000, 0)), 0),
        ("4:memory:/docker/1\n0::/", below(OLDER, older(700_000, 300_000, 100_000)), 500_000),
        (
            "9:cpu:/x\n4:hugetlb,memory:/box\n0::/",
            below(f"{OLDER}/box", older(700_000, 300_000, 0)),
            400_000,
        ),
    ],
)
def test_a_container_leaves_what_its_groups_leave(
    tmp_path: Path, groups: str, files: dict[str, str], left: int
) -> None:
    assert memory.available(system(tmp_path, groups, files)) == left


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/", {}),
        ("0::/", below(UNIFIED, unified("max", 1, 0))),
        ("4:memory:/", below(OLDER, older((1 << 63) - 4096, 300_000, 0))),
        ("3:cpu:/", below(OLDER, older(1000, 1, 0))),
    ],
)
def test_without_a_limit_it_is_what_the_machine_has(
    tmp_path: Path, groups: str, files: dict[str, str]
) -> None:
    total = psutil.virtual_memory().total
    assert 0.01 * total < memory.available(system(tmp_path, groups, files)) <= total


def test_other_systems_have_no_groups(tmp_path: Path) -> None:
    assert memory.available(tmp_path) > 0
