"""Which architectures a library knows: it is asked about every name that it could know."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import gguf

from tools.zoo_survey import lending

NAME = re.compile(rb"(?<=\0)[a-z][a-z0-9]*(?:[-._][a-z0-9]+)*(?=\0)")
"""Words between two NULs in the library's file: the names are among them."""
LONGEST = 24


def candidates(library: Path) -> list[str]:
    """Names of the ``gguf`` package, and words of the library's file."""
    words = {
        word.decode() for word in NAME.findall(library.read_bytes()) if 2 <= len(word) <= LONGEST
    }
    return sorted(words | set(gguf.MODEL_ARCH_NAMES.values()))


def known(directory: str | None, python: str) -> list[str]:
    """Names that the library takes for an architecture."""
    run = subprocess.run(
        [python, "-m", "tools.zoo_survey.names", directory or ""],
        stdout=subprocess.PIPE, text=True, check=True, env=lending(),
    )  # fmt: skip
    found: list[str] = json.loads(run.stdout.splitlines()[-1])
    return found


def asked(directory: str | None, names: Iterable[str] | None = None) -> list[str]:
    """Ask the library in this process, by a file that says nothing but its architecture."""
    from pytest_kvquant.engine.child.library import LoadedLibrary

    library = LoadedLibrary(directory)
    llama = library.llama
    lines: list[str] = []
    log = llama.llama_log_callback(lambda _level, text, _data: lines.append(text.decode()))
    llama.llama_log_set(log, None)
    params = llama.llama_model_default_params()
    params.vocab_only = True
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or candidates(library.path.resolve()):
            lines.clear()
            path = Path(folder) / "named.gguf"
            _write(path, name)
            model = llama.llama_model_load_from_file(str(path).encode(), params)
            if model:
                llama.llama_model_free(model)
            if "unknown model architecture" not in "".join(lines):
                found.append(name)
    return found


def _write(path: Path, name: str) -> None:
    writer = gguf.GGUFWriter(path, name)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    print(json.dumps(asked(sys.argv[1] or None)))
