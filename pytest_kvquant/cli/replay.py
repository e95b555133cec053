"""``kvquant replay``: what ``--kv-evidence`` kept, judged under other budgets or rules."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.machine.escape import paragraph


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    replay = commands.add_parser(
        "replay",
        help="judge what --kv-evidence kept, under other budgets or rules, without a model",
    )
    replay.add_argument("folder", type=Path, metavar="DIR", help="folder with the evidence")
    replay.add_argument(
        "--kv-config", metavar="PATH", help="budgets of this file over the defaults"
    )
    rules = replay.add_mutually_exclusive_group()
    rules.add_argument("--kv-profile", metavar="NAME", help="rules of this profile")
    rules.add_argument("--kv-chunks", metavar="N", help="judged once, after N chunks")
    replay.set_defaults(run=_replay)


def _replay(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.checks import registry
    from pytest_kvquant.checks.budget import Budgets
    from pytest_kvquant.checks.budgets import resolve_budgets
    from pytest_kvquant.config.resolver import find_root, resolve
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.numerics.rules import PROFILES, Rules
    from pytest_kvquant.quality.evidence_file import EvidenceConditions
    from pytest_kvquant.session.replay import as_text, fails, replay

    typed = {"profile": parsed.kv_profile, "chunks": parsed.kv_chunks}
    config = Path(parsed.kv_config) if parsed.kv_config else None
    settings = resolve(
        typed, config=config, root=find_root(Path.cwd()), budgets=registry.budget_units()
    )
    rules = None
    if parsed.kv_chunks:
        assert settings.chunks is not None
        rules = Rules(cap=settings.chunks, early=False)
    elif parsed.kv_profile:
        rules = PROFILES[settings.profile]

    def budgets(conditions: EvidenceConditions) -> Budgets:
        if config is None:
            return conditions.budgets
        pair = Pair.parse(conditions.pair)
        return resolve_budgets(pair, embedded=conditions.embedded, overrides=settings.budgets)

    judged = replay(parsed.folder, rules=rules, budgets=budgets)
    print(paragraph(as_text(judged)))
    return 1 if fails(judged) else 0
