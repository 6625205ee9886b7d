"""The status calls that the control plane received, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from almagent.controlplane.store.statuses import Received

HEADINGS = ("after", "call", "status", "container", "message")


def rendered(calls: Sequence[Received], since: float, width: int | None) -> str:
    """`since`: seconds since the epoch that times are told from. Lines are cut to `width`."""
    rows = [HEADINGS, *(_row(call, since) for call in calls)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * size for size in (*widths[:-1], len(HEADINGS[-1]))))
    return "\n".join(line if width is None else line[:width] for line in lines)


def _row(call: Received, since: float) -> tuple[str, ...]:
    report = call.report
    return (
        f"{call.received - since:.1f} s".rjust(7),
        f"{report.kind}_status",
        report.status,
        (report.container_id or "")[:12],
        report.message or "",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip()
