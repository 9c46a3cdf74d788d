"""Row F1 for images: batch norm has statistics of its own on each rank, which a kill must not
show."""

import pytest

from citeflow.tasks import get_task, load_settings
from citeflow.training import launch
from faults.disturbed_training import Fault, Training

SETTINGS = [
    "model.channels=8",
    "model.hidden=16",
    "train.epochs=3.6",
    "train.num_validations=4",
    "recovery.checkpoint_steps=10",
]


class ImageTraining(Training):
    """Forty steps on digits; the default model, which has batch norm."""

    def launch(self, *faults, meanwhile=None):
        settings = load_settings("images", overrides=SETTINGS)
        with self.disturbed(*faults):
            launch.train_locally(self.graph, self.run, config=settings, workers=self.workers)
        return self.digest

    def require_as(self, other):
        assert self.digest == other.digest
        assert self.curve("history", "loss") == other.curve("history", "loss")
        for value in ("valid_accuracy", "valid_loss"):
            assert self.curve("evaluations", value) == other.curve("evaluations", value)


@pytest.mark.fault("F1")
def test_killed_image_workers_leave_the_same_bits(prepared, tmp_path):
    config = load_settings("images")
    task = get_task("images")
    raw = task.download("digits", data_root=tmp_path, settings=config)
    images = task.preprocess(raw, data_root=tmp_path, settings=config.to_dict())
    whole, run = (ImageTraining(prepared, tmp_path / name) for name in ("whole", "run"))
    whole.graph = run.graph = images
    whole.launch()
    run.launch(
        Fault(what="kill", step=7, rank=1),
        Fault(what="kill", step=24, rank=0, attempt=2),
        Fault(what="kill", at="update", step=33, rank=1, attempt=3),
    )
    assert len(run.events("fired", what="kill")) == 3
    assert run.starts == [0, 0, 20, 30]
    run.require_as(whole)
