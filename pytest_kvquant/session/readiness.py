"""Whether a run would start: the one check that pytest and ``kvquant doctor`` share.

What is refused here is refused by both, in the same words. Nothing of it needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.declared import require_known
from pytest_kvquant.config.resolver import resolve
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.errors import RunRefused, SettingsError
from pytest_kvquant.machine.devices import occupy, share_out, visiting
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.quality.evidence_file import require_ours
from pytest_kvquant.quality.scenarios.registry import all_scenarios
from pytest_kvquant.report import output
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session


def settle(
    typed: Mapping[str, str | None],
    *,
    config: Path | None,
    root: Path,
    place: Callable[[Settings], Settings] = lambda settings: settings,
) -> Settings:
    """The settings of a run, as far as they can be judged without a worker.

    Args:
        typed, config, root: as :func:`pytest_kvquant.config.resolver.resolve` takes them.
        place: puts this process on its device.

    Raises:
        RunRefused: a run would not start.
    """
    settings = resolve(typed, config=config, root=root, budgets=registry.budget_units())
    require_known(settings.expect, lambda: _scenarios(settings))
    if settings.baselines is None:
        settings = msgspec.structs.replace(settings, baselines=root / "baselines")
    settings = place(settings)
    output.check(settings)
    if settings.evidence is not None:
        require_ours(settings.evidence)
    if settings.scenarios:
        _scenarios(settings)  # those of files, whether or not they are played this time
    _ = scrub({}, settings.environment).hook  # a file that has to be there
    return settings


def refusal(
    typed: Mapping[str, str | None],
    *,
    config: Path | None,
    root: Path,
    shell: Mapping[str, str],
    processes: int = 0,
) -> tuple[str, list[str]]:
    """Why a run would not start, in a sentence, empty where it would; and what it would remark.

    Args:
        shell: the variables of the shell.
        processes: of pytest-xdist.
    """
    listener = Listener()
    try:
        settings = settle(typed, config=config, root=root)
        _require_own_servers(settings, processes)
        device = settings.devices[0] if settings.devices and not processes else ""
        with visiting(device):
            Session(settings, dict(shell), listener, vocabulary_only=True).close()
        share_out(settings.devices, processes)
    except RunRefused as error:
        return str(error), listener.notes
    return "", listener.notes


def _require_own_servers(settings: Settings, processes: int) -> None:
    if processes and settings.setup.get("rpc"):
        raise SettingsError(
            f"-n {processes} does not run with --kv-rpc: a server serves one process at a time, "
            "and the others would wait for it. Leave -n out, or run parts of the matrix on "
            "servers of their own with --kv-shard, and put them together with kvquant merge."
        )


def settle_here(settings: Settings, *, processes: int, device: str | None) -> Settings:
    """The settings of this process, which keeps to its own device from here on.

    Args:
        processes: of pytest-xdist, in the one that controls them; that one measures nothing.
        device: of this process, where it is one of them.

    Raises:
        SettingsError: the device cannot be had, or a server by several processes.
    """
    if processes:
        _require_own_servers(settings, processes)
        return settings
    if device is not None:
        settings = msgspec.structs.replace(settings, devices=(device,))
    if settings.devices:
        occupy(settings.devices[0])
    return settings


def _scenarios(settings: Settings) -> list[str]:
    """Names of all scenarios, those of further files included."""
    return [one.name for one in all_scenarios([Path(one) for one in settings.scenarios])]
