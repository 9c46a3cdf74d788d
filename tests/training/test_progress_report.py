"""Between validations rank 0 says at least each minute how far it is."""

import dataclasses
import time

import pytest
from toy_task import OpenToyTask

from citeflow.config import TrainConfig
from citeflow.paths import RunPaths
from citeflow.training.checkpoint import SavedState
from citeflow.training.lease import acquire
from citeflow.training.preemption import PreemptionHandler
from citeflow.training.progress_report import line_facts, report_progress
from citeflow.training.standing import Standing
from citeflow.training.trainer import ResumePoint, Trainer
from citeflow.utils import progress

NAMES = OpenToyTask.names
HALF = Standing(
    activity="training",
    step=50,
    num_steps=200,
    share=0.25,
    seconds=100,
    samples=400,
    loss=0.5,
    score=None,
)


def test_line_names_step_of_steps_loss_speed_and_time_left():
    assert line_facts(HALF, 1234.5, NAMES) == {
        "step": 50,
        "of": 200,
        "done": "25%",
        "loss": 0.5,
        "points_per_s": 1234,
        "left": "5 min 00 s",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_steps": None}, {"of": None}),
        ({"share": 0.0, "loss": None}, {"done": "0%", "loss": None, "left": "unknown"}),
        ({"share": 1.1}, {"done": "100%", "left": "0.0 s"}),
    ],
)
def test_line_leaves_out_what_is_not_known(changes, expected):
    facts = line_facts(dataclasses.replace(HALF, **changes), 1.0, NAMES)
    assert {name: facts.get(name) for name in expected} == expected


def test_report_progress_shows_a_training_between_validations(
    group, tmp_path, monkeypatch, signal_handlers, capfd
):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.05)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    task = OpenToyTask(TrainConfig(epochs=1, num_validations=1))
    task.on_batch = lambda step: time.sleep(0.02)
    run = RunPaths(tmp_path, "r")
    start = ResumePoint(lease=acquire(run.leases, launch="", step=0), inputs={}, state=SavedState())
    trainer = Trainer(
        task, run, start, group=group, preemption=PreemptionHandler(), checkpoint_steps=100
    )
    with report_progress(trainer):
        trainer.fit()
    log = capfd.readouterr().err
    between = log[: log.index("evaluated")].splitlines()
    lines = [line for line in between if "training step=" in line]
    assert len(lines) >= 2
    assert all("train[rank 0]" in line and " of=16 " in line for line in lines)
    assert "points_per_s=" in lines[-1]
    assert "loss=" in lines[-1]
    assert lines[-1].endswith(" s")
    assert trainer.standing().share == 1
