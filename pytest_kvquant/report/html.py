"""The page: one self-contained HTML file with the charts, the words and the raw result."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_kvquant import __version__, format
from pytest_kvquant.errors import RunRefused
from pytest_kvquant.numerics.metrics import LOG10_KL_EDGES
from pytest_kvquant.report import matrix_rows, view
from pytest_kvquant.report.advice import RULE as ADVICE_RULE
from pytest_kvquant.report.baseline_notes import notes
from pytest_kvquant.report.coverage_map import coverage_map
from pytest_kvquant.report.howsure import how_sure
from pytest_kvquant.report.links import anchor
from pytest_kvquant.report.run_lines import conditions_line
from pytest_kvquant.report.workloads import recall_table, text_tables
from pytest_kvquant.results.conditions import ReferenceRecord
from pytest_kvquant.results.result import Result

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
ECHARTS = HERE / "vendor" / "echarts" / "echarts.min.js"
TEMPLATES = HERE / "templates"

WORDS = {"good": "Pass", "open": "Undecided", "bad": "Fail"}


def require_extra(option: str) -> None:
    """See that the page can be made.

    Raises:
        RunRefused: Jinja2 is not installed; names the extra that brings it.
    """
    try:
        importlib.import_module("jinja2")
    except ImportError:
        raise RunRefused(
            f"{option} needs Jinja2, which is not installed: pip install 'pytest-kvquant[report]'."
        ) from None


def render(result: Result, *, incomplete: str = "") -> str:
    """The page of one result.

    Args:
        incomplete: what is still missing, where the run goes on: the page says so and loads itself
            again every five seconds, until its reader stops it.
    """
    rows = matrix_rows.rows(result)
    shape = result.settings
    gates = sum(len(cell.gates) for cell in result.cells)
    data = {
        "rows": rows,
        "metrics": matrix_rows.available(rows),
        "edges": LOG10_KL_EDGES,
        "scored": shape.scored,
        "first": shape.ctx - 1 - shape.scored,
        "floor": result.floor.kl if result.floor else None,
    }
    recall = recall_table(result)
    return render_page(
        "report.html.j2",
        "report.js",
        data,
        result=result,
        incomplete=incomplete,
        anchor=anchor,
        advice_rule=ADVICE_RULE,
        raw=packed(result),
        rows=rows,
        cells={cell.pair: cell for cell in result.cells},
        speeds={speed.pair: speed for speed in result.speed},
        metrics=matrix_rows.available(rows),
        columns=[column for column in matrix_rows.COLUMNS if column.in_any(rows)],
        failures=view.failures(result),
        headline=view.headline(result),
        tone=view.run_tone(result),
        verdict_word=f"{WORDS[view.run_tone(result)]}{' so far' if incomplete else ''}",
        conditions=conditions_line(result),
        changes=notes(result),
        facts=facts(result),
        subject=result.reference.subject,
        how_sure=[text.partition(". ") for text in how_sure(shape, gates)] if gates else [],
        coverage=coverage_map(result),
        texts=list(text_tables(result)),
        recall=recall,
        repeat=lambda pair: view.repeat(result, pair),
        measured={
            "memory": any(row.memory is not None and row.kl is not None for row in rows),
            "speed": any(row.speeds for row in rows),
            "curves": any(row.positions for row in rows),
            "distances": recall is not None and len(recall.columns) > 1,
        },
    )


def render_page(template: str, script: str, data: Mapping[str, object], **context: object) -> str:
    """A page of the family: shared style and scripts, ``data`` for the charts.

    The library comes packed and is unpacked by the page's own script. Only these two may run (a
    content security policy names their hashes), and nothing may be fetched: whatever a model file
    calls itself stays text.

    Args:
        template: its name in ``templates/``; extends ``base.html.j2``.
        script: its name there, run after ``common.js``.
        data: what the script reads as ``kv.view``.
        context: what the template reads.
    """
    from markupsafe import Markup

    library = ECHARTS.read_text(encoding="utf-8")
    own = _text("boot.js").replace("/* BODY */", _text("common.js") + _text(script))
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(own)}; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(
        policy=policy,
        version=__version__,
        style=Markup(_text("page.css")),
        library=_packed(library.encode()),
        script=Markup(own),
        view=_embedded(data),
        **context,
    )


def facts(result: Result) -> list[tuple[str, str]]:
    """The conditions of every figure, as names and values."""
    environment, shape, model = result.environment, result.settings, result.model
    library, corpus = environment.library, result.corpus
    drawn = f"at most {shape.cap}" if shape.early else f"exactly {shape.cap}"
    found = [
        ("model", f"{model.name} ({model.architecture}), {format.size(model.size)}, "
         f"vocabulary {model.vocabulary:,}, trained for {model.context_trained:,} tokens, "
         f"fingerprint {model.fingerprint}"),
        ("corpus", f"{corpus.name}, {corpus.tokens:,} tokens, fingerprint {corpus.fingerprint}"),
        ("chunks", f"{shape.ctx} tokens each, {shape.scored} scored; {drawn} ({shape.profile}), "
         f"{shape.order}, seed {shape.seed}; tokens {corpus.tokens_hash}"),
        ("batches", f"n_batch {shape.batch}, n_ubatch {shape.ubatch}, "
         f"{shape.sequences} sequences at once"),
        ("library", f"llama.cpp {library.build}, files {library.hash}, "
         f"bindings {library.bindings} on Python {library.python}"),
        ("compared with", _reference(result.reference)),
        ("devices", "; ".join(f"{one.name}: {one.description}" for one in library.devices)),
        ("offload", "all layers" if shape.gpu_layers < 0 else f"{shape.gpu_layers} layers"),
        ("llama.cpp options", _variables(shape.setup)),
        ("machine", f"{environment.cpu}, {format.size(environment.memory)}, {environment.system}, "
         f"{environment.machine}, {format.several(shape.threads, 'thread')}"),
        ("variables dropped", _variables(environment.variables_dropped)),
        ("variables set", _variables(environment.variables_set)),
        ("plugin", f"pytest-kvquant {environment.plugin}, Python {environment.python}"),
        ("started", f"{environment.started}, took {format.seconds(result.seconds)}"),
    ]  # fmt: skip
    return [(name, value) for name, value in found if value]


def _reference(reference: ReferenceRecord) -> str:
    other = reference.library
    if other is None:
        return ""
    return f"{reference.subject}: llama.cpp {other.build}, files {other.hash}, {other.path}"


def _text(template: str) -> str:
    return (TEMPLATES / template).read_text(encoding="utf-8")


def _variables(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in variables.items())


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "tone": matrix_rows.tone,
        "figure": format.figure,
        "kl": format.kl,
        "count": format.count,
        "speed": format.speed,
        "ratio": lambda value: "–" if value is None else format.ratio(value),
    }
    environment.tests["indented"] = lambda line: line.startswith("  ")
    return environment


def _embedded(data: object) -> str:
    """JSON that may stand inside a ``<script>`` element: nothing in it can end the element."""
    from markupsafe import Markup

    text = msgspec.json.encode(data).decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def packed(result: Result) -> str:
    """The result as base64 of gzip, a fifth of its size; the page's own button unpacks it."""
    return _packed(msgspec.json.encode(result))


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def unpacked(text: str) -> bytes:
    """The JSON of what :func:`packed` made."""
    return gzip.decompress(base64.b64decode(text))


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
