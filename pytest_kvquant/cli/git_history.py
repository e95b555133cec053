"""Accepted baselines commit by commit: what git knows of their figures."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pytest_kvquant.baselines.file import Baseline, BaselineError, decode
from pytest_kvquant.errors import ResultError
from pytest_kvquant.report.snapshot import Snapshot


def points_of_git(folder: Path) -> tuple[list[Snapshot], list[str]]:
    """A point for each commit and each folder of baselines that it left changed, oldest first.

    A point holds all baselines of its folder as they were then, not only the changed ones: a pair
    that was left alone goes on at its level.

    Returns:
        The points, and a sentence for each file that could not be read.

    Raises:
        ResultError: no git, no repository, or no baseline in its history.
    """
    if not folder.is_dir():
        raise ResultError(f"{folder} is not a folder.")
    points: list[Snapshot] = []
    skipped: list[str] = []
    for commit, when in _commits(folder):
        changed = _git(folder, "diff-tree", "--root", "--no-commit-id", "--name-only", "-r",
                       "--relative", commit, "--", ".").splitlines()  # fmt: skip
        folders = {str(PurePosixPath(path).parent) for path in changed if path.endswith(".json")}
        for place in sorted(folders):
            baselines = list(_baselines(folder, commit, place, skipped))
            if baselines:
                points.append(_point(baselines, when, commit[:10]))
    if not points:
        raise ResultError(f"git knows no baseline under {folder}.")
    return points, list(dict.fromkeys(skipped))


def _point(baselines: list[Baseline], when: str, commit: str) -> Snapshot:
    one = baselines[0].conditions
    return Snapshot(
        title=(
            f"{one.model} ({one.model_fingerprint}) · {one.corpus} ({one.corpus_fingerprint}) · "
            f"{one.ctx} tokens, {one.scored} scored · {one.cpu}, {one.device} · baselines in git"
        ),
        started=when,
        build=f"commit {commit}, {one.library}",
        figures={
            baseline.pair: {"kl": baseline.summary.kl_mean, "top1": baseline.summary.top1}
            for baseline in baselines
        },
    )


def _baselines(folder: Path, commit: str, place: str, skipped: list[str]) -> Iterator[Baseline]:
    listed = _git(folder, "ls-tree", "--name-only", commit, f"{place}/").splitlines()
    for path in listed:
        if not path.endswith(".json"):
            continue
        name = f"{path} of {commit[:10]}"
        text = _git(folder, "show", f"{commit}:./{path}")
        try:
            yield decode(text, name)
        except BaselineError as error:
            skipped.append(f"left out: {error}")


def _commits(folder: Path) -> list[tuple[str, str]]:
    """Commits that touched the folder, oldest first, with their dates in UTC."""
    log = _git(folder, "log", "--reverse", "--date=format-local:%Y-%m-%dT%H:%M:%S+00:00",
               "--format=%H %cd", "--", ".")  # fmt: skip
    return [(line[:40], line[41:]) for line in log.splitlines()]


def _git(folder: Path, *words: str) -> str:
    import os

    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, check=False, env={**os.environ, "TZ": "UTC"},
        )  # fmt: skip
    except OSError as error:
        raise ResultError(f"git cannot be started: {error.strerror}.") from None
    if done.returncode:
        raise ResultError(f"git {words[0]} in {folder}: {done.stderr.strip()}.")
    return done.stdout
