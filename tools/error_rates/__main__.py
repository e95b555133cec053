"""The error rates of the gates: ``python -m tools.error_rates`` rewrites the tables in
``docs/statistics.md``.

Takes about four minutes. ``--matrices N`` simulates fewer, ``--print`` leaves the page alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.error_rates.table import MATRICES, render

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
BEGIN, END = "<!-- error rates: python -m tools.error_rates -->", "<!-- end error rates -->"


def main() -> None:
    """Simulate, and put the table where it stands."""
    parser = argparse.ArgumentParser(prog="python -m tools.error_rates")
    parser.add_argument("--matrices", type=int, default=MATRICES)
    parser.add_argument("--print", action="store_true")
    parsed = parser.parse_args()
    text = render(parsed.matrices)
    if parsed.print:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
