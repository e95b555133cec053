"""The documentation's pages; those of gates, records and modules are made from the code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from pytest_kvquant import __version__  # noqa: E402  (the path comes first)
from tools import pages  # noqa: E402

project = "pytest-kvquant"
author = "The pytest-kvquant developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pytest-kvquant {__version__}"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
suppress_warnings = ["myst.xref_missing", "ref.python"]


def setup(app: Any) -> None:
    """Write the pages that are made from the code before the others are read."""
    app.connect("builder-inited", lambda _app: pages.write(HERE))
