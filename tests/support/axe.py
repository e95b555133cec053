"""axe-core in a page of the tests' browser: what stops a screen reader or a keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support.browser import Page

PLACES = (
    Path(__file__).resolve().parents[2] / "tools" / "axe" / "node_modules" / "axe-core",
    Path(os.environ.get("KVQUANT_AXE", "/nowhere")),
)


def find_axe() -> Path | None:
    """``axe.min.js``, from ``npm install`` in ``tools/axe`` or the folder ``KVQUANT_AXE``."""
    return next(
        (place / "axe.min.js" for place in PLACES if (place / "axe.min.js").is_file()), None
    )


def violations(page: Page, axe: Path) -> list[dict[str, Any]]:
    """Every rule that is broken: ``id``, ``help`` and the places, as axe-core names them."""
    page.evaluate(axe.read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map("
        "(one) => ({id: one.id, help: one.help, places: one.nodes.map((node) => node.html + ' | ' "
        "+ node.any.concat(node.all).map((why) => why.message).join('; '))})))"
    )
    return found
