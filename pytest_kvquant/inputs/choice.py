"""What ``--kv-model`` means: a file, a folder, a pattern, or a name in another program's cache."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.found_models import FoundModel, found_models
from pytest_kvquant.inputs.gguf_header import BadHeader, read_header
from pytest_kvquant.inputs.header_fields import Fields
from pytest_kvquant.inputs.shards import part_of
from pytest_kvquant.inputs.strange import kind

_NAMED: Final = re.compile(r"(?:^|/)((?:hf|llama\.cpp|lmstudio|ollama):.+)$")
_PATTERN: Final = re.compile(r"[*?\[]")


def chosen(path: Path) -> Path:
    """The file that is meant; ``path`` itself where nothing else is.

    Raises:
        ModelError: none or several are meant.
    """
    if path.is_file():
        return path
    if path.is_dir():
        return _one(sorted(path.glob("*.gguf")), f"The folder {path} holds")
    if named := _NAMED.search(str(path)):
        return _by_name(named[1])
    if _PATTERN.search(str(path)):
        anchor = Path(path.anchor or ".")
        matches = sorted(anchor.glob(str(path.relative_to(anchor) if path.anchor else path)))
        return _one(matches, f"The pattern {path} matches")
    return path


def _by_name(name: str) -> Path:
    found = found_models(os.environ, Path.home())
    meant = [one for one in found if one.name == name] or [
        one for one in found if _is_of(name, one)
    ]
    if not meant:
        raise ModelError(
            f"The model {name} is not on this machine, and nothing is downloaded; "
            "`kvquant models` lists what is."
        )
    return _one([one.path for one in meant], f"{name} means", {one.path: one.name for one in meant})


def _is_of(name: str, one: FoundModel) -> bool:
    """Whether a file is of the repository ``hf:org/name``, and of the quantization after a colon.

    llama.cpp puts the parts of a name together with underscores. Ollama has tags, and files
    without names.
    """
    place, _, rest = name.partition(":")
    repository, colon, quant = rest.partition(":")
    if place == "ollama":
        return not colon and one.name.startswith(f"{name}:")
    if place == "llama.cpp":
        start = f"{place}:{repository.replace('/', '_')}_"
    else:
        start = f"{place}:{repository}/"
    return one.name.startswith(start) and quant.lower() in one.path.name.lower()


def _one(files: Sequence[Path], what: str, names: Mapping[Path, str] | None = None) -> Path:
    """The only model among files.

    Args:
        names: by which ``--kv-model`` takes each; ``None``: those of the files.
    """
    models = [file for file in files if _is_model(file)]
    if len(models) == 1:
        return models[0]
    if not models:
        raise ModelError(f"{what} no GGUF model; give a GGUF file with --kv-model.")
    if names is None:
        alike = len({file.name for file in models}) < len(models)
        names = {file: str(file) if alike else file.name for file in models}
    shown = ", ".join(names[file] for file in models[:5]) + (", …" if models[5:] else "")
    raise ModelError(f"{what} {len(models)} models ({shown}); name one of them with --kv-model.")


def _is_model(file: Path) -> bool:
    """Whether it is worth a choice: no further shard, no projector, adapter or vocabulary."""
    part = part_of(file)
    if part is not None and part.number > 1:
        return False
    try:
        header = read_header(file)
        architecture = Fields(header.fields, "").text("general.architecture")
        return kind(header.fields, str(architecture), header.tensors) is None
    except (BadHeader, OSError):
        return True  # what is wrong with it is said when it is read
