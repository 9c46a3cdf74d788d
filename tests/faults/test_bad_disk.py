"""Rows F17 and F48: the volume is read-only, full or slow while real workers train, and back."""

import contextlib
import errno
import json

import pytest

from citeflow.training import launch
from faults import worker_on_bad_disk
from faults.disturbed_training import BETWEEN_CHECKPOINTS, STEPS, Fault, Training

PAUSE = Fault(what="pause", rank=None, attempt=None, seconds=0.1)
WARNING = "could not save a checkpoint"
STEP_TIMEOUT_S = 5
FSYNC_S = 2.0
"""So long that no checkpoint is on the disk within the timeout of a step: it has several files."""


class OnBadDisk(Training):
    """A training whose volume fails from one step to another, or until it is mended."""

    def __init__(self, prepared, data_root, *overrides, steps, number=0, seconds=0.0):
        super().__init__(prepared, data_root, *overrides)
        self.volume = data_root / "volume.json"
        self.plan = {
            "file": str(self.volume),
            "folders": [str(self.run_dir), str(self.run.logs)],
            "trouble": {"number": number, "seconds": seconds},
            "steps": steps,
        }

    @contextlib.contextmanager
    def disturbed(self, *faults):
        with super().disturbed(*faults), pytest.MonkeyPatch.context() as patch:
            patch.setenv(worker_on_bad_disk.VARIABLE, json.dumps(self.plan))
            patch.setattr(launch, "WORKER", worker_on_bad_disk.__name__)
            yield


@pytest.mark.fault("F17", nightly=True)
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_volume_that_refuses_writes_for_a_while_costs_only_checkpoints(
    prepared, tmp_path, undisturbed, number, capfd
):
    run = OnBadDisk(prepared, tmp_path, steps=[15, 45], number=number)
    run.launch(PAUSE)
    assert run.starts == [0]
    assert capfd.readouterr().err.count(WARNING) in (3, 4)
    assert run.checkpoints == [STEPS - BETWEEN_CHECKPOINTS, STEPS]
    run.require_tidy()
    run.require_as(undisturbed)


@pytest.mark.fault("F48", nightly=True)
def test_volume_that_is_slower_than_the_timeout_of_a_step_loses_no_worker(
    prepared, tmp_path, undisturbed
):
    slow = f"recovery.step_timeout_s={STEP_TIMEOUT_S}"
    run = OnBadDisk(prepared, tmp_path, slow, steps=[15, 25], seconds=FSYNC_S)
    run.launch(PAUSE)
    assert run.starts == [0]
    run.require_as(undisturbed)


@pytest.mark.fault("F48", nightly=True)
def test_worker_that_is_lost_while_the_volume_is_read_only_goes_on_when_it_is_back(
    prepared, tmp_path, undisturbed
):
    run = OnBadDisk(prepared, tmp_path, steps=[15, None], number=errno.EROFS)

    def mend():
        run.wait_for("left", code=70, number=2)
        run.volume.unlink()

    run.launch(PAUSE, Fault(what="kill", step=25), meanwhile=mend)
    assert run.starts[0] == 0
    assert len(run.starts) == 2
    run.require_tidy()
    run.require_as(undisturbed)
