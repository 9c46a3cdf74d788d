import csv
import io

import pytest
from outcomes import outcome

from citeflow.experiments.scaling import PUBLISHED, as_csv, rows
from citeflow.experiments.scaling_page import draw_page, headline, summary


@pytest.fixture
def table():
    trials = [(4, 2, 5.0), (1, 2, 20.0), (2, 2, 8.0), (2, 4, 15.0), (1, 4, 30.0)]
    return rows(
        [outcome(workers=w, epochs=e, seconds=s, mrr=0.1 * w) for w, e, s in trials], cores=2
    )


def test_speed_up_and_efficiency_are_against_the_fewest_workers_of_as_many_epochs(table):
    found = [(row.workers, row.epochs, row.speed_up, row.efficiency) for row in table]
    assert found == [(1, 2, 1, 1), (2, 2, 2.5, 1.25), (4, 2, 4, 1), (1, 4, 1, 1), (2, 4, 2, 1)]


def test_efficiency_counts_how_many_times_more_workers_there_are_where_one_alone_was_not_tried():
    _, second = rows(
        [outcome(workers=2, seconds=12.0), outcome(workers=6, seconds=8.0)], cores=None
    )
    assert second.speed_up == pytest.approx(1.5)
    assert second.efficiency == pytest.approx(0.5)


def test_the_published_result_has_the_speed_up_and_the_efficiency_that_it_states():
    last = PUBLISHED[-1]
    assert (last.workers, last.epochs) == (6, 30)
    assert round(last.speed_up, 2) == 1.15
    assert round(last.efficiency, 2) == 0.38


def test_more_workers_than_cores_are_said_so_where_they_share_a_machine(table):
    assert [row.workers for row in table if row.more_workers_than_cores] == [4]
    assert "More workers than cores" in summary("hepth", table, cores=2)
    pods = rows([outcome(workers=4)], cores=None)
    assert not pods[0].more_workers_than_cores
    assert "workers than cores" not in summary("hepth", pods, cores=None)


def test_the_table_as_csv_has_a_line_for_each_run_with_its_figures(table):
    lines = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [(line["workers"], line["epochs"], line["seconds"]) for line in lines][1] == (
        "2",
        "2.0",
        "8.0",
    )
    assert lines[0]["peak_memory_bytes"] == str(2**30)
    assert lines[0]["mrr"] == "0.1"


def test_a_model_without_figures_of_its_resources_has_none_in_the_table():
    bare = outcome()
    for name in ("cpu_cores", "peak_memory_bytes"):
        del bare.report["train"][name]
    (row,) = rows([bare], cores=2)
    assert row.cpu_cores is None
    assert as_csv([row]).splitlines()[1].endswith(",,,False")


def test_the_headline_is_what_the_most_workers_bring_in_the_longest_training(table):
    assert headline(table) == "2 workers are 2.00 × as fast as 1 at 4 epochs: 100 % efficiency."  # noqa: RUF001
    assert "nothing to compare" in headline(rows([outcome()], cores=2))


@pytest.mark.parametrize("cores", [2, None])
def test_the_page_has_four_figures_and_both_tables(table, cores):
    page = draw_page("he<pth", table, cores=cores)
    assert page.count("<svg") == 4
    assert page.count("<table") == 2
    assert "he&lt;pth" in page
    assert "he<pth" not in page
    assert "0.8511" in page
    for label in (
        "Training time (s)",
        "Times as fast",
        "Citations per second",
        "Test MRR",
        "published, 30 epochs",
    ):
        assert label in page


def test_a_sweep_of_one_run_has_a_page_too():
    assert "<svg" in draw_page("hepth", rows([outcome()], cores=2), cores=2)
