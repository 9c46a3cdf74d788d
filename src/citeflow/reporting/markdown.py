"""A report as Markdown, for the run page of KFP, and as plain text, for the terminal."""

import html

from citeflow.report import Report
from citeflow.reporting import formatting, tables
from citeflow.reporting.tables import Table

SPECIAL = "\\`*_[]|~#!"


def summary(report: Report) -> str:
    """Render the result, the figures and the stages as Markdown."""
    shown = [
        tables.metrics(report),
        tables.baselines(report),
        tables.protocols(report),
        tables.methods(report),
        tables.training(report),
        tables.goodput(report),
        tables.stages(report),
    ]
    title = f"# {escape(report.dataset)}\n\n{formatting.headline(report)}\n"
    parts = [title, *(render(table) for table in shown if table.rows)]
    if report.remarks:
        remarks = "\n".join(f"- {escape(text)}" for text in report.remarks)
        parts.append(f"## The dataset\n\n{remarks}\n")
    return "\n".join(parts)


def render(table: Table) -> str:
    """Render one table with its title; figures are aligned to the right."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    rows = [rule, *([escape(cell) for cell in row] for row in table.rows)]
    lines = [[escape(cell) for cell in table.header], *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"## {table.title}\n\n{text}\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, on one line and inside a table cell too."""
    one_line = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"&#{ord(letter)};" if letter in SPECIAL else letter for letter in one_line)


def table(report: Report) -> str:
    """Render the figures of a run in aligned columns, for the end of a command."""
    shown = [
        tables.stages(report),
        tables.metrics(report),
        tables.protocols(report),
        tables.methods(report) if report.protocols else tables.baselines(report),
    ]
    last = f"{' '.join(report.dataset.split())}: {formatting.headline(report)}"
    doubts = ["\n".join(report.warnings)] if report.warnings else []
    return "\n\n".join([*(align(part) for part in shown if part.rows), *doubts, last]) + "\n"


def align(table: Table) -> str:
    """Render one table in columns of spaces."""
    rows = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *figures in rows:
        cells = [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
