"""report.html: one file with everything in it, that needs no network and no script."""

from html import escape
from typing import Any

import yaml

from citeflow.reporting import charts, formatting, style, tables
from citeflow.reporting.charts import Chart
from citeflow.reporting.tables import Table

Json = dict[str, Any]
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
BASELINES = (
    "The baselines need no training. Three of them add up what the citing and the cited paper have in common in the "
    "training citations; popularity is how often a paper is cited."
)
COSTS = "Cores: mean number in use. Read and written: disk. Received: over the network, by all of the pod or machine."
STRONG = (formatting.MODEL, tables.ALL_STAGES)


def render_page(report: Json, curves: Json) -> str:
    """The report of a run as a page.

    Args:
        report: content of report.json.
        curves: content of curves.json.
    """
    dataset = escape(_one_line(report.get("dataset", "unnamed dataset")))
    body = [
        f'<p class="eyebrow">citeflow run report</p>\n<h1>{dataset}</h1>',
        f'<p class="headline">{escape(formatting.headline(report))}</p>',
        _tiles(report),
        section("Results", _results(report)),
        section("Figures", _figures(charts.draw_all(report, curves))),
        section("The run", _facts(report)),
        _details("Settings", f"<pre>{escape(_yaml(report.get('config') or {}))}</pre>"),
        _details("Versions", rows(tables.versions(report))),
        "<footer>Made by citeflow. Everything on this page is in the file itself.</footer>",
    ]
    return document(f"{dataset} · citeflow", "\n".join(body))


def document(title: str, body: str) -> str:
    """A whole page, from its title and its body, both as HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>
{style.css()}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _tiles(report: Json) -> str:
    test, train = report.get("test") or {}, report.get("train") or {}
    best = next(iter(formatting.baseline_scores(report).items()), None)
    tiles = [
        ("Test MRR", formatting.score(test.get("mrr")), "mean of 1 / rank"),
        (
            "Best baseline",
            formatting.score(best[1] if best else None),
            formatting.method(best[0]) if best else "",
        ),
        ("Hits@10", formatting.score(test.get("hits@10")), "share ranked in the first ten"),
        ("AUC", formatting.score(test.get("auc")), "0.5 is chance"),
        (
            "Training time",
            formatting.duration(train.get("seconds")),
            formatting.plural(train.get("workers"), "worker"),
        ),
        ("Throughput", formatting.rate(train.get("positives_per_s")), "citations trained on"),
    ]
    return '<dl class="tiles">\n' + "\n".join(_tile(*tile) for tile in tiles) + "\n</dl>"


def _tile(label: str, value: str, note: str) -> str:
    return f'<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd><dd class="note">{escape(note)}</dd></div>'


def _results(report: Json) -> str:
    compared = card(tables.baselines(report), remark=BASELINES)
    return grid([card(tables.metrics(report)), compared], "even")


def _facts(report: Json) -> str:
    made = [
        card(table) for table in (tables.dataset(report), tables.training(report)) if table.rows
    ]
    stages = tables.stages(report)
    below = card(stages, remark=COSTS if len(stages.header) > 3 else "") if stages.rows else ""
    return f'<div class="stack">{grid(made)}{below}</div>'


def section(title: str, content: str) -> str:
    """A heading and what stands below it, as HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def grid(items: list[str], kind: str = "") -> str:
    """Cards side by side where there is room; of the kind `even`, in columns of the same width."""
    return f'<div class="{f"grid {kind}".strip()}">\n' + "\n".join(items) + "\n</div>"


def card(table: Table, *, remark: str = "") -> str:
    """A table with its title, and a remark below it, as a card."""
    drawn = rows(table, caption=f"<caption>{escape(table.title)}</caption>")
    below = f'<p class="remark">{escape(remark)}</p>' if remark else ""
    return f'<div class="card">{drawn}{below}</div>'


def rows(table: Table, *, caption: str = "") -> str:
    """A table as HTML."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    body = "\n".join(_row(row) for row in table.rows)
    return f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _row(row: tuple[str, ...]) -> str:
    kind = ' class="strong"' if row[0] in STRONG else ""
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f'<tr{kind}><th scope="row">{escape(row[0])}</th>{cells}</tr>'


def _figures(drawn: list[Chart]) -> str:
    missing = "\n".join(
        f"<li>{escape(f'{chart.title}: {chart.caption}')}</li>" for chart in drawn if not chart.svg
    )
    figures = grid(
        [figure(chart.title, chart.svg, chart.caption) for chart in drawn if chart.svg], "even"
    )
    return f'{figures}\n<ul class="remark">\n{missing}\n</ul>' if missing else figures


def figure(title: str, svg: str, caption: str) -> str:
    """A drawing with its title and how to read it, as a card."""
    drawing, head, below = style.follow_theme(svg), escape(title), escape(caption)
    return f'<figure class="card">\n<h3>{head}</h3>\n{drawing}\n<figcaption>{below}</figcaption>\n</figure>'


def _details(title: str, content: str) -> str:
    return f'<details class="card"><summary>{escape(title)}</summary>\n{content}\n</details>'


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
