"""Puts docs/ci into the wheel, for ``kvquant ci``; an editable one reads it where it is."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DocsInWheel(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """A hook of hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; ``version`` is ``standard`` or ``editable``."""
        if version == "standard":
            build_data["force_include"]["docs/ci"] = "pytest_kvquant/ci"
