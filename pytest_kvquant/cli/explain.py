"""``kvquant explain``: what a gate or check asserts, why, and what its failure means."""

from __future__ import annotations

import argparse
import difflib

from pytest_kvquant.cli.commands import Commands


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    explain = commands.add_parser(
        "explain", help="say what a gate or check asserts, and what its failure means"
    )
    explain.add_argument(
        "name", nargs="?", help="of a gate, check or test, as kl_mean (default: list all)"
    )
    explain.add_argument("--markdown", action="store_true", help="all of them, as a page")
    explain.set_defaults(run=_explain)


def _explain(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.checks import registry
    from pytest_kvquant.checks.document import as_page, as_text
    from pytest_kvquant.checks.kernel_names import KERNEL_GATES
    from pytest_kvquant.checks.kernel_names import TITLES as KERNEL_TITLES
    from pytest_kvquant.errors import SettingsError

    found = registry.declared()
    if parsed.markdown:
        print(as_page(found), end="")
        return 0
    if parsed.name is None:
        for one in found:
            print(f"{one.name:16} {one.summary}")
        return 0
    asked = [
        one for one in found if parsed.name in (one.name, one.test, KERNEL_GATES.get(one.name))
    ]
    if not asked:
        names = [
            name
            for one in found
            for name in (one.name, one.test, KERNEL_GATES.get(one.name))
            if name
        ]
        nearest = difflib.get_close_matches(parsed.name, names, n=1, cutoff=0.0)[0]
        raise SettingsError(
            f"There is no gate, check or test '{parsed.name}'; did you mean '{nearest}'?"
        )
    if parsed.name in KERNEL_GATES.values():
        print(f"{KERNEL_TITLES[parsed.name]}: {BESIDE_HEALTHY}\n")
    print("\n\n".join(as_text(one) for one in asked))
    return 0


BESIDE_HEALTHY = (
    "the same figure as below, held against what the pair's types must cost on these very tokens "
    "(an emulation with f16's kernels and the library's own quantizer). It tells whether the "
    "kernel is right, on any model, without a budget."
)
