import dataclasses

import pytest

from citeflow.reporting import tuning as pages
from citeflow.reporting.tuning import Search, Tried


def tried(number, mrr, state="complete", **values):
    values = values or {
        "train.lr": 0.01 * (number + 1),
        "model.hidden_channels": 64,
        "model.predictor": "dot",
    }
    curve = [0.1, mrr or 0.05]
    return Tried(
        number=number, state=state, valid_mrr=mrr, values=values, seconds=61.0, evaluations=curve
    )


SEARCH = Search(
    run="s",
    dataset="<cora>",
    tried=[
        tried(0, 0.3),
        tried(1, 0.25),
        tried(2, None, "pruned"),
        tried(3, 0.35),
        tried(4, None, "fail"),
    ],
    log_keys=frozenset({"train.lr"}),
)


def search(*trials):
    return dataclasses.replace(SEARCH, tried=trials)


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        (
            SEARCH.tried,
            "Trial 3 beats the default settings by 0.0500 (validation MRR 0.3500 against 0.3000).",
        ),
        (
            [tried(0, 0.3), tried(1, 0.2)],
            "No trial beats the default settings (validation MRR 0.3000) in 1 other trial.",
        ),
        ([tried(0, 0.3), tried(1, 0.3)], "No trial beats the default settings"),
        (
            [tried(0, None, "fail"), tried(1, 0.2)],
            "Trial 1 is the best (validation MRR 0.2000); the default settings",
        ),
        ([tried(0, None, "fail")], "No trial has ended with a model."),
        ([], "No trial has ended with a model."),
    ],
)
def test_the_verdict_says_whether_the_best_beats_the_default(trials, told):
    assert pages.verdict(search(*trials)).startswith(told)


def test_the_table_has_the_best_first_and_says_what_became_of_the_others():
    rows = pages.table(SEARCH).rows
    assert [row[0] for row in rows] == ["3", "0 (default)", "1", "2", "4"]
    assert [row[1] for row in rows] == ["0.3500", "0.3000", "0.2500", "pruned", "fail"]
    assert rows[0][2:] == ("0.04", "64", "dot", "1 min 01 s")


def test_the_values_can_be_read_by_other_programs():
    lines = pages.as_csv(SEARCH).splitlines()
    assert (
        lines[0] == "trial,state,valid_mrr,seconds,train.lr,model.hidden_channels,model.predictor"
    )
    assert lines[3] == "2,pruned,,61.0,0.03,64,dot"


def test_the_page_is_whole_and_shows_nothing_unescaped():
    text = pages.as_html(SEARCH, "--set train.lr=0.04")
    assert text.count("<svg") == 3
    assert "&lt;cora&gt;" in text
    assert "<cora>" not in text
    assert "mathdefault" not in text
    assert "<script" not in text


@pytest.mark.parametrize(
    "trials", [[], [tried(0, 0.3)], [tried(0, None, "pruned"), tried(1, None, "waiting")]]
)
def test_a_page_of_few_trials_can_be_drawn(trials):
    assert pages.verdict(search(*trials)) in pages.as_html(search(*trials), "").replace(
        "&#x27;", "'"
    )


def test_the_markdown_has_the_options_to_copy():
    assert "    --set train.lr=0.04\n" in pages.as_markdown(SEARCH, "--set train.lr=0.04")
