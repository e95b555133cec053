"""``kvquant reproduce``: one node computed again, from a file that a run wrote."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.errors import CellError, LibraryError

if TYPE_CHECKING:
    from pytest_kvquant.engine.messages.kernels import Reproduced


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    reproduce = commands.add_parser(
        "reproduce",
        help="compute one node again, from a file that a run wrote, on any build and device",
        epilog="exit code: 0 the node is right; 1 it is wrong; 2 it cannot be computed",
    )
    reproduce.add_argument("file", type=Path, metavar="FILE", help="file that a failure names")
    reproduce.add_argument("--kv-lib", metavar="DIR", help="directory of the llama.cpp build")
    reproduce.add_argument("--kv-python", metavar="PATH", help="interpreter whose bindings fit it")
    reproduce.add_argument("--kv-devices", metavar="NAME", help="device (default: the CPU)")
    reproduce.set_defaults(run=_reproduce, measures=True)


def _reproduce(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.engine.parent.engine import Engine
    from pytest_kvquant.engine.parent.examination import reproduce
    from pytest_kvquant.engine.parent.worker import Worker
    from pytest_kvquant.machine.devices import CPU
    from pytest_kvquant.machine.environment import scrub
    from pytest_kvquant.machine.visible import only

    environment = scrub(dict(os.environ), {})
    engine = Engine(
        python=parsed.kv_python or sys.executable,
        directory=str(Path(parsed.kv_lib).absolute()) if parsed.kv_lib else None,
        environment=environment,
        visible=only([parsed.kv_devices or CPU], environment.variables),
        timeout=120.0,
    )
    try:
        with Worker(engine) as worker:
            build = worker.library(engine.directory, full=True)
            path = str(parsed.file.absolute())
            found = reproduce(worker, path, parsed.kv_devices)
    except CellError as error:
        raise LibraryError(str(error)) from None
    sys.stdout.write(_in_words(found, str(build["path"])))
    return 1 if any(one.text for one in found.findings) else 0


def _in_words(found: Reproduced, library: str) -> str:
    about = found.about
    lines = [
        f"{about.operation} {about.name}, layer {about.layer}",
        f"  the file: {about.text} ({about.build})",
        f"  here: {library}, {found.device}; NMSE against the file's output {found.change:.2g}",
    ]
    if not found.understood:
        lines.append("  not judged: the operation is not understood")
    for one in found.findings:
        verdict = f"wrong: {one.text}" if one.text else "right"
        lines.append(
            f"  {verdict} (NMSE {one.error:.2g} against exact arithmetic, "
            f"{one.ratio:.2g} of the limit)"
        )
    return "\n".join(lines) + "\n"
