"""``python -m pytest_kvquant``: the console script ``kvquant``."""

from __future__ import annotations

import sys

from pytest_kvquant.cli.main import main

sys.exit(main())
