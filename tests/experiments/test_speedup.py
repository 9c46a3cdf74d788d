import csv
import dataclasses
import io

import pytest
from outcomes import outcome

from citeflow.experiments.speedup import build_rows, to_csv

NAMES = ("test_mrr", "accuracy")


@pytest.fixture
def rows():
    trials = [(4, 2, 5.0), (1, 2, 20.0), (2, 2, 8.0), (2, 4, 15.0), (1, 4, 30.0)]
    outcomes = [outcome(workers=w, epochs=e, seconds=s, mrr=0.1 * w) for w, e, s in trials]
    return build_rows(outcomes, cores=2)


def test_speed_up_is_against_the_fewest_workers(rows):
    found = [(row.workers, row.epochs, row.speed_up, row.efficiency) for row in rows]
    assert found == [(1, 2, 1, 1), (2, 2, 2.5, 1.25), (4, 2, 4, 1), (1, 4, 1, 1), (2, 4, 2, 1)]
    assert [row.workers for row in rows if row.more_workers_than_cores] == [4]


def test_efficiency_counts_workers_as_multiples_of_the_fewest():
    outcomes = [outcome(workers=2, seconds=12.0), outcome(workers=6, seconds=8.0)]
    _, second = build_rows(outcomes, cores=None)
    assert (second.speed_up, second.efficiency) == (pytest.approx(1.5), pytest.approx(0.5))
    assert not second.more_workers_than_cores


def test_csv_has_a_line_for_each_training(rows):
    lines = list(csv.DictReader(io.StringIO(to_csv(rows, NAMES))))
    second = lines[1]
    assert (second["workers"], second["epochs"], second["seconds"]) == ("2", "2.0", "8.0")
    assert (float(lines[0]["peak_memory_bytes"]), lines[0]["test_mrr"]) == (2**30, "0.1")
    assert "all_mrr" not in second
    bare = dataclasses.replace(rows[0], cpu_cores=None, peak_memory_bytes=None)
    assert to_csv([bare], NAMES).splitlines()[1].endswith(",,,False")
