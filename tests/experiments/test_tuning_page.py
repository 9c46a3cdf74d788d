import dataclasses

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from citeflow.experiments.tuning_page import (
    SearchResult,
    build_table,
    render_html,
    render_markdown,
    to_csv,
    verdict,
)
from citeflow.tasks import get_task, load_settings

SPACE = {
    "train.lr": FloatDistribution(0.001, 0.1, log=True),
    "model.hidden_channels": CategoricalDistribution([64, 128]),
    "model.predictor": CategoricalDistribution(["dot", "mlp"]),
}


def trial(number, mrr, state=TrialState.COMPLETE):
    values = {
        "train.lr": 0.01 * (number + 1),
        "model.hidden_channels": 64,
        "model.predictor": "mlp" if number else "dot",
    }
    made = create_trial(
        state=state,
        value=mrr,
        params=values,
        distributions=SPACE,
        user_attrs={"values": values, "seconds": 61.0},
        intermediate_values={1: 0.1, 2: mrr or 0.05},
    )
    made.number = number
    return made


RESULT = SearchResult(
    run="s",
    dataset="<cora>",
    trials=[
        trial(0, 0.3),
        trial(1, 0.25),
        trial(2, None, TrialState.PRUNED),
        trial(3, 0.35),
        trial(4, None, TrialState.FAIL),
    ],
    names=get_task("citation").names,
    criterion=get_task("citation").criterion(load_settings()),
)


def result(*trials):
    return dataclasses.replace(RESULT, trials=trials)


def of_protocol(name):
    settings = load_settings(overrides=[f"evaluation.protocol={name}"])
    return dataclasses.replace(RESULT, criterion=get_task("citation").criterion(settings))


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        (
            RESULT.trials,
            "Trial 3 beats the default settings by 0.0500 (validation MRR 0.3500 against 0.3000).",
        ),
        (
            [trial(0, 0.3), trial(1, 0.2)],
            "No trial beats the default settings (validation MRR 0.3000) in 1 other trial.",
        ),
        ([trial(0, 0.3), trial(1, 0.3)], "No trial beats the default settings"),
        (
            [trial(0, None, TrialState.FAIL), trial(1, 0.2)],
            "Trial 1 is the best (validation MRR 0.2000); the default settings",
        ),
        ([trial(0, None, TrialState.FAIL)], "No trial has ended with a model."),
        ([], "No trial has ended with a model."),
    ],
)
def test_verdict_compares_the_best_with_the_default(trials, sentence):
    found = result(*trials)
    assert verdict(found).startswith(sentence)
    assert verdict(found) in render_html(found, "").replace("&#x27;", "'")


def test_table_has_the_best_first_and_the_state_of_the_others():
    rows = build_table(RESULT).rows
    assert [row[0] for row in rows] == ["3", "0 (default)", "1", "2", "4"]
    assert [row[1] for row in rows] == ["0.3500", "0.3000", "0.2500", "pruned", "fail"]
    assert rows[0][2:] == ("0.04", "64", "mlp", "1 min 01 s")
    assert to_csv(RESULT).splitlines()[3] == "2,pruned,,61.0,0.03,64,mlp"
    assert "    --set train.lr=0.04\n" in render_markdown(RESULT, "--set train.lr=0.04")


def test_another_protocol_than_the_usual_is_named():
    result = of_protocol("cold")
    assert "(validation MRR without references 0.3500 against 0.3000)" in verdict(result)
    assert build_table(result).header[1] == "Validation MRR without references"
    hard = render_html(of_protocol("hard"), "")
    assert "Validation MRR among hard papers by trial" in hard
    assert "its test MRR among hard papers, on citations" in hard
    assert "hard papers" not in render_html(RESULT, "")


def test_html_is_whole_and_escaped():
    text = render_html(RESULT, "--set train.lr=0.04")
    assert text.count("<svg") == 4  # a single value of hidden_channels has no figure
    assert "&lt;cora&gt;" in text
    assert not [bad for bad in ("<cora>", "mathdefault", "<script", "#1f77b4") if bad in text]
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
