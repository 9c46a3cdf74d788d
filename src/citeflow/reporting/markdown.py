"""A report as Markdown, for the run page, and as plain text, for the terminal."""

import html
from typing import Any

from citeflow.reporting import formatting, tables
from citeflow.reporting.tables import Table

Json = dict[str, Any]
SPECIAL = "\\`*_[]|~#!"
NAMED_ONLY = 1


def summary(report: Json) -> str:
    """The result, the figures and the stages, as Markdown."""
    shown = [
        tables.metrics(report),
        tables.baselines(report),
        tables.training(report),
        tables.stages(report),
    ]
    title = f"# {escape(str(report.get('dataset', 'citeflow')))}\n\n{formatting.headline(report)}\n"
    return "\n".join([title, *(render(table) for table in shown if table.rows)])


def render(table: Table) -> str:
    """One table with its title; figures are aligned to the right."""
    rule = ["---", *["---:"] * (len(table.header) - NAMED_ONLY)]
    lines = [
        _line(table.header),
        "| " + " | ".join(rule) + " |",
        *(_line(row) for row in table.rows),
    ]
    return f"## {table.title}\n\n" + "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line and inside a table cell too."""
    one_line = html.escape(" ".join(text.split()))
    return "".join(f"&#{ord(letter)};" if letter in SPECIAL else letter for letter in one_line)


def table(report: Json) -> str:
    """The figures of a run in aligned columns, for the end of a command."""
    shown = [tables.stages(report), tables.metrics(report), tables.baselines(report)]
    name = " ".join(str(report.get("dataset", "")).split())
    head = f"{name}: {formatting.headline(report)}" if name else formatting.headline(report)
    return "\n\n".join([*(_aligned(part) for part in shown if part.rows), head]) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"


def _aligned(table: Table) -> str:
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
