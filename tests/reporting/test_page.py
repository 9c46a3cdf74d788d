import copy
import re
from html.parser import HTMLParser

import pytest

from citeflow.reporting import style
from citeflow.reporting.drawing import COLOURS
from citeflow.reporting.page import render_page

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)> & 'co'\nline"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Checks that every tag is closed by its like, and notes tags, ids and references."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "action", "data")
        ]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def text_of(page: str) -> str:
    without = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", without).split())


def test_tags_are_balanced_and_ids_unique(page):
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))


def test_the_page_names_dataset_result_and_best_baseline(page):
    text = text_of(page)
    assert "hepth" in text
    assert "Test MRR 0.7518, 0.0707 above the best baseline (Resource allocation, 0.6811)." in text
    assert "<title>hepth" in page


@pytest.mark.parametrize(
    "expected",
    [
        "Hits@10 0.9264 0.9148",
        "Popularity 0.0946 \u22120.6572",
        "Papers 29,557",
        "Self-citations dropped 39",
        "Repeated citations dropped 1,244",
        "Citations of later papers, kept 7,213 (2.1 %)",
        "Workers 2",
        "Parameters 66,310",
        "train 5 min 09 s 1.78 GiB",
        "all 5 min 36 s 1.78 GiB",
        "predictor: structural",
        "torch 2.13.0",
    ],
)
def test_the_page_holds_the_figures_of_the_run(page, expected):
    assert expected in text_of(page)


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page):
    outline = Outline(page)
    assert all(reference.startswith("#") for reference in outline.references)
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_a_hostile_dataset_name_is_shown_as_text(report, curves):
    report["dataset"] = HOSTILE
    report["config"]["data"]["source"] = HOSTILE
    report["versions"][HOSTILE] = HOSTILE
    report["baselines"][HOSTILE] = {"mrr": 0.3}
    report["stages"][HOSTILE] = {"seconds": 1.0, "peak_rss_bytes": 1}
    page = render_page(report, curves)
    outline = Outline(page)
    assert outline.open == []
    assert not {"script", "img"} & set(outline.tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_same_run_gives_the_same_page(report, curves, page):
    assert render_page(copy.deepcopy(report), copy.deepcopy(curves)) == page


@pytest.mark.parametrize(
    "report", [{}, {"dataset": "x", "test": {"mrr": 0.0}, "baselines": {"popularity": {}}}]
)
def test_an_almost_empty_report_makes_a_page(report):
    page = render_page(report, {})
    assert Outline(page).open == []
    assert "not drawn" in page


def test_every_figure_has_a_heading_and_a_caption(page):
    assert page.count("<figure ") == page.count("<figcaption>") == page.count('role="img"') == 10


def test_every_colour_has_a_dark_counterpart_and_drawings_follow(page):
    assert set(style.DARK) == set(COLOURS)
    figures = page[page.index("<figure") :]
    assert not re.findall(r"#[0-9a-f]{6}\b(?!-)", re.sub(r"#\w+-\w+", "", figures))
