"""Rows F17 and F48: the volume is read-only, full or slow while real workers train, and back."""

import contextlib
import errno
import json

import pytest

from citeflow.training import launch
from faults import worker_on_bad_disk
from faults.disturbed_training import BETWEEN_CHECKPOINTS, STEPS, Fault, Training

PAUSE = Fault(what="pause", rank=None, attempt=None, seconds=0.2)
WARNING = "could not save a checkpoint"
STEP_TIMEOUT_S = 5
FSYNC_S = 2.0
"""So long that no checkpoint is on the disk within the timeout of a step: it has several files."""


class OnBadDisk(Training):
    """A training whose volume can be told to fail."""

    @property
    def volume(self):
        return self.file.with_name("volume.json")

    @contextlib.contextmanager
    def disturbed(self, *faults):
        folders = [str(self.run_dir), str(self.run.logs)]
        given = {"file": str(self.volume), "folders": folders}
        with super().disturbed(*faults), pytest.MonkeyPatch.context() as patch:
            patch.setenv(worker_on_bad_disk.VARIABLE, json.dumps(given))
            patch.setattr(launch, "WORKER", worker_on_bad_disk.__name__)
            yield

    def fail(self, number=0, seconds=0.0):
        """Let the volume fail from now on."""
        self.volume.write_text(json.dumps({"number": number, "seconds": seconds}))

    def mend(self):
        self.volume.unlink()

    def at(self, step):
        """Wait until a step is taken by all ranks."""
        self.wait_for("fired", step=step, what="pause", number=2)


@pytest.mark.fault("F17", nightly=True)
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_volume_that_refuses_writes_for_a_while_costs_only_checkpoints(
    prepared, tmp_path, undisturbed, number, capfd
):
    run = OnBadDisk(prepared, tmp_path)

    def meanwhile():
        run.at(15)
        run.fail(number)
        run.at(45)
        run.mend()

    run.launch(PAUSE, meanwhile=meanwhile)
    assert run.starts == [0]
    assert 3 <= capfd.readouterr().err.count(WARNING) <= 6
    assert run.checkpoints == [STEPS - BETWEEN_CHECKPOINTS, STEPS]
    run.require_tidy()
    run.require_as(undisturbed)


@pytest.mark.fault("F48", nightly=True)
def test_volume_that_is_slower_than_the_timeout_of_a_step_loses_no_worker(
    prepared, tmp_path, undisturbed
):
    run = OnBadDisk(prepared, tmp_path, f"recovery.step_timeout_s={STEP_TIMEOUT_S}")

    def meanwhile():
        run.at(15)
        run.fail(seconds=FSYNC_S)
        run.at(25)
        run.mend()

    run.launch(PAUSE, meanwhile=meanwhile)
    assert run.starts == [0]
    run.require_as(undisturbed)


@pytest.mark.fault("F48", nightly=True)
def test_worker_that_is_lost_while_the_volume_is_read_only_goes_on_when_it_is_back(
    prepared, tmp_path, undisturbed
):
    run = OnBadDisk(prepared, tmp_path)

    def meanwhile():
        run.at(15)
        run.fail(errno.EROFS)
        run.wait_for("left", code=70, number=2)
        run.mend()

    run.launch(PAUSE, Fault(what="kill", step=25), meanwhile=meanwhile)
    assert run.starts == [0, BETWEEN_CHECKPOINTS]
    run.require_tidy()
    run.require_as(undisturbed)
