"""Rows F3 and F12: workers that stand still, are slow, hold the GIL, or compute NaN."""

import pytest
from safetensors.torch import load_file

from citeflow.errors import TrainingError
from faults.disturbed_training import STEPS, Fault, Training

TIMEOUT_S = 5
MARGIN_S = 10
SHUT_DOWN_S = 30
"""What a standby gives a worker that stands still, between SIGUSR1 and SIGKILL."""

RESTART_S = 20
SLOW_STEP_S = TIMEOUT_S / 10


@pytest.mark.fault("F3", nightly=True)
def test_still_worker_is_lost_after_the_timeout_and_slow_one_is_not(
    prepared, tmp_path, undisturbed
):
    run = Training(prepared, tmp_path, f"recovery.step_timeout_s={TIMEOUT_S}")
    run.launch(
        Fault(what="freeze", step=15, seconds=70),
        Fault(what="hold lock", step=25, seconds=70, attempt=2),
        Fault(what="pause", attempt=3, seconds=SLOW_STEP_S),
    )
    for attempt, what in ((1, "freeze"), (2, "hold lock")):
        (fired,) = run.events("fired", what=what)
        (left,) = run.events("left", rank=0, attempt=attempt)
        again = max(event["at"] for event in run.events("began", attempt=attempt + 1))
        assert TIMEOUT_S <= left["at"] - fired["at"] < TIMEOUT_S + MARGIN_S
        assert again - fired["at"] < TIMEOUT_S + SHUT_DOWN_S + RESTART_S
    assert run.starts == [0, 15, 25]
    assert len(run.events("fired", what="pause")) == STEPS - 25
    run.require_as(undisturbed)


@pytest.mark.fault("F12", nightly=True)
def test_nan_of_one_worker_ends_the_training_before_the_update(run, undisturbed):
    for what, step in (("spoil loss", 25), ("spoil gradients", 35)):
        with pytest.raises(TrainingError, match="not finite") as caught:
            run.launch(Fault(what=what, at="loss", step=step))
        assert caught.value.exit_code == 75
        assert len(run.events("fired", what=what)) == 1
        for folder in (run.run_dir / "checkpoints").iterdir():
            tensors = load_file(folder / "state.safetensors").values()
            assert all(value.isfinite().all() for value in tensors)
    run.launch()
    assert run.starts == [0, 20, 30]
    run.require_as(undisturbed)
