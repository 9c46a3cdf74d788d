import csv
import dataclasses
import io

import pytest
from outcomes import outcome

from citeflow.experiments.scaling_page import Labels, headline, render_html, render_markdown
from citeflow.experiments.speedup import build_rows, to_csv
from citeflow.tasks import get_task

CITATIONS = Labels.of(get_task("citation"), outcome().report.compared())


@pytest.fixture(scope="module")
def rows():
    trials = [(4, 2, 5.0), (1, 2, 20.0), (2, 2, 8.0), (2, 4, 15.0), (1, 4, 30.0)]
    return build_rows([outcome(workers=w, epochs=e, seconds=s) for w, e, s in trials], cores=2)


def test_headline_states_the_gain_of_the_longest_training(rows):
    assert headline(rows) == "2 workers are 2.00 × as fast as 1 at 4 epochs: 100 % efficiency."  # noqa: RUF001
    assert "nothing to compare" in headline(build_rows([outcome()], cores=2))


def test_markdown_remarks_more_workers_than_cores(rows):
    assert "More workers than cores" in render_markdown("hepth", rows, CITATIONS, cores=2)
    pods = build_rows([outcome(workers=4)], cores=None)
    assert "workers than cores" not in render_markdown("hepth", pods, CITATIONS, cores=None)


def test_page_marks_trainings_during_which_others_took_cores():
    shares = {1: 0.624, 2: 0.1}
    trials = [outcome(workers=w, seconds=30.0 / w, others_share=shares[w]) for w in shares]
    rows = build_rows(trials, cores=2)
    text = render_markdown("hepth", rows, CITATIONS, cores=2)
    page = render_html("hepth", rows, CITATIONS, cores=2)
    assert "| 1 | 2 | 30.0 s † | 1.00 | 100 % | 33 |" in text
    assert "| 2 | 2 | 15.0 s | 2.00 | 100 % | 67 |" in text
    for shown in (text, page):
        assert "Do not rely on it: others took up to 62 % of the cores meanwhile." in shown
        assert "† Others took more than 10 % of the cores meanwhile" in shown
    table = list(csv.DictReader(io.StringIO(to_csv(rows, ("test_mrr", "accuracy")))))
    assert [row["others_share"] for row in table] == ["0.624", "0.1"]


@pytest.mark.parametrize("share", [None, 0.0, 0.1])
def test_page_marks_no_training_without_others(share):
    rows = build_rows([outcome(workers=w, others_share=share) for w in (1, 2)], cores=2)
    for shown in (
        render_markdown("hepth", rows, CITATIONS, cores=2),
        render_html("hepth", rows, CITATIONS, cores=2),
    ):
        assert "†" not in shown
        assert "rely on" not in shown


def test_page_and_csv_have_the_mrr_in_every_protocol():
    trials = [outcome(workers=w, ogb=0.6, all=0.25 / w, cold=0.05) for w in (1, 2)]
    rows = build_rows(trials, cores=2)
    text = render_markdown("hepth", rows, CITATIONS, cores=2)
    assert "| Workers | Epochs | Random papers | All papers | No references |" in text
    assert "| 2 | 2 | 0.6000 | 0.1250 | 0.0500 |" in text
    assert "Test MRR by protocol" in render_html("hepth", rows, CITATIONS, cores=2)
    table = list(csv.DictReader(io.StringIO(to_csv(rows, ("test_mrr", "accuracy")))))
    assert [(row["all_mrr"], row["cold_mrr"]) for row in table] == [
        ("0.25", "0.05"),
        ("0.125", "0.05"),
    ]


def test_html_has_four_figures_and_both_tables(rows):
    page = render_html("he<pth", rows, CITATIONS, cores=2)
    assert (page.count("<svg"), page.count("<table")) == (4, 2)
    assert "he<pth" not in page
    labels = "Training time (s)", "Times as fast", "Citations per second", "published, 30 epochs"
    assert "<svg" in render_html("hepth", build_rows([outcome()], cores=2), CITATIONS, cores=2)
    assert all(label in page for label in ("he&lt;pth", "0.8511", *labels))


def test_a_page_of_images_has_their_words_and_no_published_result(rows):
    compared = dataclasses.replace(
        outcome().report.compared(), metric="accuracy", second_label="Macro F1"
    )
    labels = Labels.of(get_task("images"), compared)
    page = render_html("digits", rows, labels, cores=2)
    assert (page.count("<svg"), page.count("<table")) == (4, 1)
    for label in ("Test accuracy", "Macro F1", "Images per second", "compare the images per"):
        assert label in page
    text = render_markdown("digits", rows, labels, cores=2)
    for word in ("MRR", "itation", "ublished"):
        assert word not in page + text
