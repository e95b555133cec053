"""What ``kvquant doctor --fix`` proposes: for each thing that is wrong a command; it runs none."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pytest_kvquant.cli.doctor_report import Remark, Report


class Fix(NamedTuple):
    """A proposal."""

    why: str
    command: str
    """A line for the shell."""


RELEASE = re.compile(r"(?:llama-cpp-python|bindings)[^0-9\n]{0,40}(\d+\.\d+\.\d+)")


def proposals(report: Report, shell: Mapping[str, str]) -> list[Fix]:
    """What could be typed, the most urgent first; nothing where a run would start as it is.

    Args:
        shell: the variables of the shell.
    """
    found: list[Fix] = []
    for remark in report.findings:
        if remark.wrong:
            found += list(_of(remark, report))
    dropped = [name for name in shell if re.match(r"(LLAMA|GGML|TURBO)_", name)]
    if dropped:
        found.append(
            Fix(
                "a run starts its workers without these variables; other tools do not",
                f"unset {' '.join(sorted(dropped))}",
            )
        )
    if importlib.util.find_spec("jinja2") is None:
        found.append(Fix("--kv-report needs Jinja2", "pip install 'pytest-kvquant[report]'"))
    return list(dict.fromkeys(found))


def as_text(fixes: list[Fix]) -> str:
    """The proposals for people."""
    if not fixes:
        return "Nothing to fix.\n"
    return "".join(f"# {fix.why}\n{fix.command}\n" for fix in fixes)


def _of(remark: Remark, report: Report) -> Iterator[Fix]:
    text = remark.text
    if remark.name in ("library", "bindings") and (releases := RELEASE.findall(text)):
        yield Fix(
            f"bindings that fit the library, without a llama.cpp of their own ({text})",
            "CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install --no-cache-dir "
            f"'llama-cpp-python=={releases[-1]}'",
        )
    elif remark.name == "library":
        yield Fix(
            f"the folder with libllama for --kv-lib ({text})",
            "find . ~ -name 'libllama.so' -o -name 'libllama.dylib' 2>/dev/null",
        )
    elif remark.name == "model":
        yield Fix(f"a GGUF file for --kv-model ({text})", "find . ~ -name '*.gguf' 2>/dev/null")
    elif remark.name == "types":
        usual = [name for name in ("f16", "q8_0", "q5_1", "q4_0") if name in report.types]
        yield Fix(
            f"types that the library has ({text})",
            f"pytest --kv-matrix --kv-types {','.join(usual)}",
        )
    elif remark.name == "store":
        yield Fix(
            f"another place for the f16 references ({text})",
            'pytest --kv-matrix --kv-store "$TMPDIR/kvquant"',
        )
    elif remark.name == "settings":
        yield Fix(
            f"a file of settings that can be read ({text})", "kvquant init --out kvquant.new.toml"
        )
