import pytest

from citeflow.report import Curves
from citeflow.reporting import markdown, tables
from citeflow.reporting.html import render_report


def test_summary_rows_have_as_many_cells_as_the_header(report):
    text = markdown.summary(report)
    assert text.startswith("# hepth\n\nTest MRR 0.7518")
    widths = {}
    for block in text.split("\n## ")[1:]:
        title, _, rest = block.partition("\n\n")
        widths[title] = {line.count("|") for line in rest.strip().splitlines()}
    assert list(widths) == [
        "Scores", "Against the baselines", "Protocols", "Methods by protocol", "Training",
        "Wall time of the training", "Stages",
    ]  # fmt: skip
    assert all(len(counts) == 1 for counts in widths.values())


def test_summary_escapes_a_hostile_name(report):
    hostile = report.model_copy(update={"dataset": "a|b\n# <b>*c*</b> [d](e) `f`"})
    first = markdown.summary(hostile).splitlines()[0]
    assert first.startswith("# a&#124;b &#35; &lt;b&gt;&#42;c&#42;")
    assert not set("<>*[]`|") & set(first)


def test_goodput_table_adds_up_and_is_empty_for_an_older_report(report):
    table = tables.goodput(report)
    assert table.rows[0] == ("Steps that count", "4 min 49 s", "86.4 %")
    assert ("Restarts", "9.6 s", "2.9 %") in table.rows
    assert sum(float(share.split()[0]) for *_, share in table.rows) == pytest.approx(100, abs=0.4)
    older = {"goodput": None, "wall_seconds": None, "losses": {}}
    train = report.train.model_copy(update=older)
    assert tables.goodput(report.model_copy(update={"train": train})).rows == []


def test_table_is_aligned(report):
    text = markdown.table(report)
    *tables, last = [block.splitlines() for block in text.strip().split("\n\n")]
    assert len(tables) == 4
    for lines in tables:
        assert len({len(line) for line in lines}) == 1, lines
    assert "train       5 min 09 s     1.78 GiB" in text
    assert last[0].startswith("hepth: Test MRR 0.7518, 0.0707 above the best baseline")


def test_table_of_stages_leaves_out_what_is_unknown(report):
    train = report.stages["train"].model_copy(update={"read_bytes": None, "cpu_seconds": None})
    text = markdown.table(report.model_copy(update={"stages": {"train": train}}))
    header, _, row, *rest = text.split("\n\n")[0].splitlines()
    assert header.split() == ["Stage", "Time", "Peak", "memory", "Written", "Received"]
    assert row.startswith("train")
    assert not rest


def test_remarks_and_spread_of_the_dataset_are_shown(report):
    remarks = ["WARNING: 60 of 600 papers", "papers.csv: features are 'w'"]
    spread = {"fewest_candidates": 564, "median_candidates": 600, "most_candidates": 1_000}
    facts = {**report.facts, **spread, "short_sources": 2, "remarks": remarks}
    found = report.model_copy(update={"facts": facts})
    rows = tables.dataset(found).rows
    assert ("Papers they could be ranked against", "564 to 1,000, median 600") in rows
    assert ("Not held out, with far fewer", "2") in rows
    assert "- papers.csv: features are 'w'" in markdown.summary(found)
    assert remarks[0] in markdown.table(found)
    assert remarks[1] not in markdown.table(found)
    assert "WARNING: 60 of 600 papers" in render_report(found, Curves())
