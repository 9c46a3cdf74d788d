"""The HTML page of an experiment: the one place that knows how pages are put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from citeflow.reporting import page
from citeflow.reporting.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A drawing with its title and how to read it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a page: a table with a remark, text to copy, and figures side by side."""

    title: str = ""
    table: Table | None = None
    code: str = ""
    remark: str = ""
    figures: Sequence[Figure] = ()


def render_page(*, kind: str, title: str, headline: str, sections: Sequence[Section]) -> str:
    """Render an experiment as a page of its own, which needs neither network nor scripts."""
    body = [
        f'<p class="eyebrow">citeflow {escape(kind)}</p>\n<h1>{escape(title)}</h1>',
        f'<p class="headline">{escape(headline)}</p>',
        *(_render_section(section) for section in sections),
        "<footer>Made by citeflow. Everything on this page is in the file itself.</footer>",
    ]
    return page.document(f"{escape(title)} · {escape(kind)} · citeflow", "\n".join(body))


def _render_section(section: Section) -> str:
    parts = []
    if section.table is not None:
        parts.append(page.card(section.table, remark=section.remark))
    if section.code:
        remark = f'<p class="remark">{escape(section.remark)}</p>'
        parts.append(f'<div class="card"><pre>{escape(section.code)}</pre>{remark}</div>')
    if section.figures:
        figures = [page.figure(each.title, each.svg, each.caption) for each in section.figures]
        parts.append(page.grid(figures, "even"))
    content = "\n".join(parts)
    return page.section(section.title, content) if section.title else content
