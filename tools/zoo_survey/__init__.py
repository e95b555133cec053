"""Every architecture that the installed library knows, measured on tiny random weights."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from typing import Final

LENT: Final = "KVQUANT_SURVEY_PACKAGES"
"""Names a folder of packages for an interpreter that has only bindings; its own come first."""

if folder := os.environ.get(LENT):
    sys.path.append(folder)


def lending() -> Mapping[str, str]:
    """The environment in which another interpreter finds what this one has installed."""
    return {**os.environ, LENT: sysconfig.get_path("purelib")}
