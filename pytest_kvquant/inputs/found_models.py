"""GGUF models that other programs have already put on this machine. Nothing is downloaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pytest_kvquant.inputs.shards import part_of

MOST_FILES: Final = 10_000
"""Looked at per folder: a cache is no file system."""


class FoundModel(NamedTuple):
    """A model file of another program."""

    name: str
    """As ``--kv-model`` takes it: where it is, a colon, its name there."""
    path: Path
    """The file; of a split model the first."""


def found_models(shell: Mapping[str, str], home: Path) -> list[FoundModel]:
    """All models, program by program, by name.

    Args:
        shell: variables that move those caches.
        home: of the user.
    """
    sources = (_hugging_face, _llama_cpp, _lm_studio, _ollama)
    return [found for source in sources for found in sorted(source(shell, home))]


def _hugging_face(shell: Mapping[str, str], home: Path) -> Iterator[FoundModel]:
    """Of several revisions of a file, that of the branch ``main``, else the last by name."""
    own = Path(shell.get("HF_HOME") or _cache(shell, home) / "huggingface") / "hub"
    root = Path(shell.get("HF_HUB_CACHE") or own)
    for folder in _folders(root, "models--*"):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        snapshots, main = _folders(folder / "snapshots", "*"), _branch(folder / "refs" / "main")
        by_name = {
            f"hf:{repository}/{path.relative_to(snapshot)}": path
            for snapshot in sorted(snapshots, key=lambda one: (one.name == main, one))
            for path in _files(snapshot)
        }
        yield from (FoundModel(name, path) for name, path in by_name.items())


def _branch(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _cache(shell: Mapping[str, str], home: Path) -> Path:
    return Path(shell.get("XDG_CACHE_HOME") or home / ".cache")


def _llama_cpp(shell: Mapping[str, str], home: Path) -> Iterator[FoundModel]:
    on_mac = sys.platform == "darwin"
    usual = (home / "Library" / "Caches" if on_mac else _cache(shell, home)) / "llama.cpp"
    root = Path(shell.get("LLAMA_CACHE") or usual)
    for path in _files(root):
        yield FoundModel(f"llama.cpp:{path.relative_to(root)}", path)


def _lm_studio(_shell: Mapping[str, str], home: Path) -> Iterator[FoundModel]:
    for root in (home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"):
        for path in _files(root):
            yield FoundModel(f"lmstudio:{path.relative_to(root)}", path)


def _ollama(shell: Mapping[str, str], home: Path) -> Iterator[FoundModel]:
    """Blobs have no names; manifests say which one is the model of a name and tag."""
    root = Path(shell.get("OLLAMA_MODELS") or home / ".ollama" / "models")
    for manifest in _listed(root / "manifests", "*/*/*/*"):
        try:
            layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
            digest = next(
                str(layer["digest"])
                for layer in layers
                if layer["mediaType"] == "application/vnd.ollama.image.model"
            )
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            continue
        blob = root / "blobs" / Path(digest.replace(":", "-")).name
        if blob.is_file():
            yield FoundModel(f"ollama:{manifest.parent.name}:{manifest.name}", blob)


def _files(root: Path) -> Iterator[Path]:
    """GGUF files below a folder, of split models the first."""
    for path in _listed(root, "**/*.gguf"):
        part = part_of(path)
        if path.is_file() and (part is None or part.number == 1):
            yield path


def _folders(root: Path, pattern: str) -> list[Path]:
    return [path for path in _listed(root, pattern) if path.is_dir()]


def _listed(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path, _ in zip(root.glob(pattern), range(MOST_FILES), strict=False))
    except OSError:
        return []
