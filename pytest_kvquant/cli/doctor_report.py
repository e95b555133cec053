"""What the doctor found, for people and for scripts."""

from __future__ import annotations

import msgspec


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    text: str
    wrong: bool = False
    """Whether a run would be refused, or would fail, because of it."""


class PairRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the geometry says of one pair."""

    pair: str
    bytes_per_token: int
    compression: float
    """Bytes per token of f16/f16 over those of the pair."""
    largest_context: dict[str, int]
    """Tokens that fit the free memory of each device, beside the model's weights."""
    problem: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings."""

    findings: tuple[Remark, ...]
    pairs: tuple[PairRow, ...]
    types: tuple[str, ...]
    """Cache types of the library, by name."""

    @property
    def healthy(self) -> bool:
        """Whether a run would start."""
        return not any(finding.wrong for finding in self.findings)


def as_json(report: Report) -> str:
    """The report as indented JSON; ``healthy`` first."""
    data = {"healthy": report.healthy, **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def as_text(report: Report) -> str:
    """The report for people: what is wrong stands out without colour."""
    width = max(len(finding.name) for finding in report.findings)
    lines = [
        f"{'✗' if finding.wrong else '✓'} {finding.name:<{width}}  {finding.text}"
        for finding in report.findings
    ]
    if report.pairs:
        devices = list(report.pairs[0].largest_context)
        header = ["K/V", "bytes/token", "× smaller", *(f"tokens on {name}" for name in devices)]
        rows = [header, *(_row(pair, devices) for pair in report.pairs)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines.append("")
        for row in rows:
            first, *rest = (
                word.ljust(width) if column == 0 else word.rjust(width)
                for column, (word, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join(["  " + first, *rest]).rstrip())
        lines += [f"  {pair.pair}: {pair.problem}" for pair in report.pairs if pair.problem]
    wrong = sum(finding.wrong for finding in report.findings)
    lines += ["", "A run would start." if not wrong else f"A run would not start ({wrong} ✗)."]
    return "\n".join(lines)


def _row(pair: PairRow, devices: list[str]) -> list[str]:
    contexts = [f"{pair.largest_context[name]:,}" for name in devices]
    return [pair.pair, f"{pair.bytes_per_token:,}", f"{pair.compression:.2f}", *contexts]
