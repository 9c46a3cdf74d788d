"""Row F1 for images: batch norm has statistics of its own on each rank, which a kill must not
show."""

import pytest

from citeflow.tasks import get_task, load_settings
from citeflow.training import launch
from faults.disturbed_training import Training
from faults.test_killed_workers import three_kills

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


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    config = load_settings("images")
    task = get_task("images")
    raw = task.download("digits", data_root=root, settings=config)
    return task.preprocess(raw, data_root=root, settings=config.to_dict())


@pytest.fixture(scope="module")
def whole(images, prepared, tmp_path_factory):
    """A training without a fault."""
    training = ImageTraining(prepared, tmp_path_factory.mktemp("whole"))
    training.graph = images
    training.launch()
    return training


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.fault("F1")),
        *(pytest.param(seed, marks=pytest.mark.fault("F1", nightly=True)) for seed in range(1, 10)),
    ],
)
def test_killed_image_workers_leave_the_same_bits(seed, images, whole, prepared, tmp_path):
    run = ImageTraining(prepared, tmp_path)
    run.graph = images
    run.launch(*three_kills(seed))
    assert len(run.events("fired", what="kill")) == 3
    assert len(run.starts) == 4
    run.require_as(whole)
