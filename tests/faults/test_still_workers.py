"""Workers that stand still, are slow, hold the interpreter's lock, or compute what is no number."""

import pytest
from safetensors.torch import load_file

from citeflow.errors import TrainingError
from faults.disturbed_training import STEPS, Fault, Training

TIMEOUT_S, MARGIN_S = 5, 10
SHUT_DOWN_S = 30
"""What torchrun gives a worker between SIGTERM and SIGKILL."""

SLOWER = 5


@pytest.fixture
def impatient(prepared, tmp_path):
    """A training whose workers wait for each other only a few seconds."""
    return Training(prepared, tmp_path / "run", f"recovery.step_timeout_s={TIMEOUT_S}")


@pytest.mark.fault("F3", nightly=True)
@pytest.mark.parametrize("what", ["freeze", "hold lock"])
def test_a_worker_that_stands_still_counts_as_lost_after_the_timeout(
    impatient, undisturbed, figure, what
):
    impatient.launch(Fault(what=what, step=25, seconds=70))
    (fired,) = impatient.events("fired")
    (left,) = impatient.events("left", rank=0, attempt=1)
    begun = impatient.events("began", attempt=2)
    left_s, again_s = left["at"] - fired["at"], max(told["at"] for told in begun) - fired["at"]
    assert TIMEOUT_S <= left_s < TIMEOUT_S + MARGIN_S
    assert again_s < TIMEOUT_S + MARGIN_S + SHUT_DOWN_S + MARGIN_S
    assert impatient.starts == [0, 20]
    impatient.require_as(undisturbed)
    figure(
        others_left_after_timeout_s=round(left_s - TIMEOUT_S, 1),
        trains_again_after_s=round(again_s, 1),
    )


@pytest.mark.fault("F3", nightly=True)
def test_a_worker_that_is_only_slow_is_waited_for(impatient, undisturbed, figure):
    """Each of its steps takes five times as long as a step, and at least a tenth of the timeout."""
    seconds = undisturbed.told("history")[-1]["seconds"] / STEPS
    impatient.launch(
        Fault(what="pause", step=None, attempt=None, seconds=max(SLOWER * seconds, TIMEOUT_S / 10))
    )
    assert len(impatient.events("fired")) == STEPS
    assert impatient.starts == [0]
    impatient.require_as(undisturbed)
    figure(slow_steps=STEPS, false_alarms=0)


@pytest.mark.fault("F12", nightly=True)
@pytest.mark.parametrize("what", ["spoil loss", "spoil gradients"])
def test_a_loss_or_gradient_of_one_worker_that_is_no_number_ends_the_training_before_the_update(
    run, undisturbed, figure, what
):
    with pytest.raises(TrainingError, match="not finite") as caught:
        run.launch(Fault(what=what, place="loss", step=25))
    assert caught.value.exit_code == 75
    (fired,) = run.events("fired")
    assert (fired["what"], run.starts, run.checkpoints) == (what, [0], [10, 20])
    for place in (run.run_dir / "checkpoints").iterdir():
        assert all(
            value.isfinite().all() for value in load_file(place / "state.safetensors").values()
        )
    run.launch()
    assert run.starts == [0, 20]
    run.require_as(undisturbed)
    figure(restarts=0, checkpoints_not_finite=0)
