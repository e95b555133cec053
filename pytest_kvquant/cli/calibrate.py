"""``kvquant calibrate``: budgets and floors for a model of one's own, from what it shows here."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.config.options import FLAG, OPTIONS
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.files import replace

CHUNKS = 32
"""Of every pair, where no other number is asked for."""


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    parser = commands.add_parser(
        "calibrate",
        help="measure a model's pairs and write budgets and floors for it",
        epilog="exit code: 0 written; 1 no pair is fit; 2 a run could not start",
    )
    parser.add_argument("out", type=Path, help="file to write ('-' prints); never over another")
    parser.add_argument(
        "--margin", type=float, default=2.0, help="budget over what was measured (default: 2)"
    )
    parser.add_argument("--kv-config", metavar="PATH", help="configuration file (kvquant.toml)")
    for option in OPTIONS:
        kind = {"action": "store_const", "const": "on"} if option.kind == FLAG else {}
        parser.add_argument(option.flag, dest=option.dest, help=argparse.SUPPRESS, **kind)  # type: ignore[arg-type]
    parser.set_defaults(run=_calibrate, measures=True)


def _calibrate(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.checks import registry
    from pytest_kvquant.config.resolver import find_root, resolve
    from pytest_kvquant.matrix import REFERENCE
    from pytest_kvquant.session.calibration import as_toml, unfit
    from pytest_kvquant.session.observer import Announcer
    from pytest_kvquant.session.run import Session

    out, margin = parsed.out, parsed.margin
    if not margin > 1:
        raise SettingsError(f"--margin {margin:g}: a budget is more than what was measured.")
    if str(out) != "-" and out.exists():
        raise SettingsError(f"{out} is there already; nothing is written over it. Name another.")
    typed = {option.field: getattr(parsed, option.dest) for option in OPTIONS}
    typed["chunks"] = typed["chunks"] or str(CHUNKS)
    config = Path(parsed.kv_config) if parsed.kv_config else None
    root = find_root(Path.cwd())
    settings = resolve(typed, config=config, root=root, budgets=registry.budget_units())
    session = Session(settings, dict(os.environ), Announcer("kvquant calibrate"))
    for pair in session.pairs:
        session.measure(pair)
        if session.speed.on and pair != REFERENCE:
            session.speed.measure(pair)
    result = session.result()
    text = as_toml(result, margin)
    if str(out) == "-":
        sys.stdout.write(text)
    else:
        replace(out, text.encode())
        print(f"kvquant calibrate: {out} written; pytest --kv-matrix --kv-config {out}")
    fit = [cell for cell in result.cells if cell.pair != str(REFERENCE) and not unfit(cell)]
    return 0 if fit else 1
