"""Three workers add up in an order that two do not have: a restart must not change it."""

import pytest

from faults.disturbed_training import Fault, Training


@pytest.mark.fault("F1", nightly=True)
def test_a_kill_among_three_workers_changes_nothing(prepared, tmp_path, figure):
    whole, run = (Training(prepared, tmp_path / name, workers=3) for name in ("whole", "run"))
    whole.launch()
    run.launch(Fault(what="kill", step=15))
    assert len(run.events("fired", what="kill")) == 1
    assert run.starts == [0, 10]
    assert run.digest == whole.digest
    assert run.curve("history", "loss") == whole.curve("history", "loss")
    figure(identical=1, runs=1, kills=1)
