"""The page of a training whose worker was killed."""

import dataclasses

import pytest

from citeflow.reporting.recovery import Curve, Recovery, facts, render_recovery

RECOVERY = Recovery(
    workers=2,
    steps=60,
    checkpoint_steps=10,
    undisturbed=Curve(
        seconds=[5, 8, 11], step=[1, 30, 60], evaluated_step=[30, 60], valid_mrr=[0.4, 0.5]
    ),
    attempts=[
        Curve(seconds=[5, 8], step=[1, 33], evaluated_step=[30], valid_mrr=[0.4]),
        Curve(seconds=[15, 18], step=[32, 60], evaluated_step=[60], valid_mrr=[0.5]),
    ],
    killed_s=8.1,
    noticed_s=8.35,
    restarted_s=14.1,
    killed_step=33,
    resumed_step=30,
    model_sha256=("a" * 64, "a" * 64),
)


def test_the_page_says_what_happened_and_draws_both_trainings():
    page = render_recovery(RECOVERY)
    assert "the very same model as the training that nobody disturbed" in page
    assert page.count("<svg") == 1
    for words in (
        "killed",
        "restarted",
        "undisturbed",
        "until the kill",
        "after the restart",
        "Validation MRR",
    ):
        assert words in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_the_facts_are_differences_of_what_was_measured():
    told = dict(facts(RECOVERY).rows)
    assert told["Noticed"].startswith("0.25 s later")
    assert told["Restarted"].startswith("6.0 s after the kill")
    assert told["Taken again"] == "about 3 steps"


def test_a_model_that_differs_is_said_to_differ():
    other = dataclasses.replace(RECOVERY, model_sha256=("a" * 64, "b" * 64))
    assert not other.is_equal
    assert "another model" in render_recovery(other)


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_training_with_fewer_curves_can_be_drawn(attempts):
    assert "<svg" in render_recovery(
        dataclasses.replace(RECOVERY, attempts=RECOVERY.attempts[:attempts])
    )
