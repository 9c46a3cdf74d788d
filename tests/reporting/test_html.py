import re
from html.parser import HTMLParser
from importlib import resources

from citeflow.report import BaselineScores, Curves, StageCost
from citeflow.reporting import html, plots
from citeflow.reporting.html import Section, Text
from citeflow.reporting.tables import Table

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)> & 'co'\nline"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """The tags, ids and references of a page, in which every tag must be closed by its like."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href", "action", "data"):
                self.references.append(value)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def text_of(page: str) -> str:
    without = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", without).split())


FIGURES = (
    "hepth \u00b7 citeflow run report",
    "Test MRR 0.7518, 0.0707 above the best baseline (Resource allocation, 0.6811).",
    "Ranked among all papers it is 0.3556, with 69 % in the first 20.",
    "Do not use it for papers without references: Feature cosine has 0.0654 there, the model "
    "0.0409.",
    "All papers 0.3556 0.6900 0.8800 6 28,900 1,478 57.8 s",
    "No references 0.0409 \u00b1 0.0100 0.0900 \u00b1 0.0250 0.1650 \u00b1 0.0350 4,125",
    "500 (33.8 %)",
    "This model 0.7518 0.3556 0.3531 0.0409",
    "Hits@10 0.9264 0.9148",
    "Popularity 0.0946 \u22120.6572",
    "Papers 29,557",
    "Citations of later papers, kept 7,213 (2.1 %)",
    "Split by date, newest papers held out",
    "Parameters 66,310",
    "train 5 min 09 s 1.78 GiB",
    "Steps that count 4 min 49 s 86.4 %",
    "Steps done again 4.3 s 1.3 %",
    "all 5 min 36 s 1.78 GiB",
    "predictor: structural",
    "torch 2.13.0",
)


def test_render_report_holds_the_figures_of_the_run(page):
    text = text_of(page)
    assert [figure for figure in FIGURES if figure not in text] == []


def test_render_report_is_one_valid_file_for_all_readers(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert all(reference.startswith("#") for reference in outline.references)
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page
    assert page.count("<figure ") == page.count("<figcaption>") == page.count('role="img"') == 12
    assert page.count('scope="row"') == page.count("<tr") - page.count("<thead>")
    css = (resources.files("citeflow.reporting") / "templates" / "report.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in css.split("@media")[:2]
    )
    assert {name: light[name] for name in plots.COLOURS} == plots.COLOURS
    assert set(dark) == set(light)


def test_render_report_shows_hostile_names_as_text(report):
    hostile = report.model_copy(
        update={
            "dataset": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "baselines": {HOSTILE: BaselineScores(mrr=0.3)},
            "stages": {HOSTILE: StageCost(seconds=1.0)},
        }
    )
    page = html.render_report(hostile, Curves())
    assert not {"script", "img"} & set(Outline(page).tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Training loss: not drawn, as no step was recorded." in page


def test_render_page_escapes_and_omits_what_is_empty():
    table = Table(title="T", header=("a", "b"), rows=[("<x>", "1")], strong=frozenset({"<x>"}))
    sections = [
        Section(rows=[[table], []]),
        Section(title="Folded", rows=[[Text(title="", text="<y>")]], is_folded=True),
    ]
    page = html.render_page(" <Title>\n2 ", sections, kind="citeflow <kind>")
    Outline(page)
    assert "<title>&lt;Title&gt; 2 \u00b7 citeflow &lt;kind&gt;</title>" in page
    assert '<tr class="strong"><th scope="row">&lt;x&gt;</th><td>1</td></tr>' in page
    assert "<pre>&lt;y&gt;</pre>" in page
    assert page.count('<div class="grid">') == 1
    assert 'class="tiles"' not in page
    assert 'class="headline"' not in page
