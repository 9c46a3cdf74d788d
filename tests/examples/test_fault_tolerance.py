"""The fault tolerance example, with a worker that is really killed."""

import subprocess
import sys

import pytest

QUICK = (
    "synthetic.num_papers=400",
    "data.holdout=0.2",
    "data.eval_negatives=50",
    "model.hidden_channels=16",
    "train.nodes_per_batch=20",
    "train.num_validations=4",
    "recovery.checkpoint_steps=10",
)


@pytest.mark.fault("F1", nightly=True)
def test_run_ends_with_the_same_model_after_a_kill(checkout, tmp_path):
    settings = [part for each in QUICK for part in ("--set", each)]
    script = checkout / "examples" / "fault_tolerance" / "run.py"
    command = [sys.executable, script, "--out", tmp_path, *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    assert "The model is the same to the bit." in done.stdout
    assert "<svg" in (tmp_path / "faults.html").read_text()
