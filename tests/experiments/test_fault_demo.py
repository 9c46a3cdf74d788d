"""`citeflow demo faults`, with a worker that is really killed."""

import json

import pytest

from citeflow.cli import main
from citeflow.errors import TrainingError
from citeflow.experiments import fault_demo

QUICK = ("synthetic.num_papers=400", "data.holdout=0.2", "data.eval_negatives=50", "model.hidden_channels=16", "train.nodes_per_batch=20",
         "train.epochs=12", "train.num_validations=4", "recovery.checkpoint_steps=10")  # fmt: skip


@pytest.mark.fault("F1", nightly=True)
def test_a_worker_is_killed_and_the_model_is_the_same(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(fault_demo, "SETTINGS", QUICK)
    monkeypatch.setattr(fault_demo, "DELAY_S", 0.1)
    assert main(["demo", "faults", "--out", str(tmp_path)]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["is_equal"]
    assert 0 < told["killed_s"] < told["noticed_s"] < told["restarted_s"]
    assert 0 < told["resumed_step"] <= told["steps"]
    assert "A worker is killed" in (tmp_path / "faults.html").read_text()


def test_one_worker_alone_is_refused(tmp_path, capsys):
    assert main(["demo", "faults", "--out", str(tmp_path), "--workers", "1"]) == 64
    assert "at least 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_ends_before_the_kill_is_told(tmp_path, monkeypatch):
    made = []

    def train(graph, root, name, settings, workers):
        made.append(name)
        return "a" * 64, 0.0

    curve = fault_demo.Curve(seconds=[1], step=[9], evaluated_step=[9], valid_mrr=[0.5])
    monkeypatch.setattr(fault_demo, "_train", train)
    monkeypatch.setattr(fault_demo, "_curves", lambda log_dir, began: [curve])
    monkeypatch.setattr(fault_demo, "SETTINGS", QUICK)
    (tmp_path / "runs" / "disturbed" / "attempts").mkdir(parents=True)
    with pytest.raises(TrainingError, match="before a worker was killed"):
        fault_demo.demonstrate(tmp_path, workers=2)
    assert made == ["undisturbed", "disturbed"]
