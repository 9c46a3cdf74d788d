import numpy as np
import pytest
import torch

from citeflow.errors import DataError
from citeflow.tasks.images.architectures import ARCHITECTURES
from citeflow.tasks.images.config import ImageDataConfig, ImageModelConfig
from citeflow.tasks.images.models import ImageClassifier, ImageShape, activation_floats
from citeflow.tasks.images.preparation import split_rows
from citeflow.tasks.images.training import ImageSampler


def test_sampler_deals_each_image_once_a_pass_over_all_ranks():
    sampler = ImageSampler(50, batch_size=4, world_size=3, seed=1)
    stream = np.concatenate(
        [sampler.positions(step, rank) for step in range(25) for rank in range(3)]
    )
    passes = stream.reshape(6, 50)
    for each in passes:
        assert sorted(each) == list(range(50))
    assert len({tuple(each) for each in passes}) == 6
    again = ImageSampler(50, batch_size=4, world_size=3, seed=1)
    np.testing.assert_array_equal(again.positions(24, 2), stream[-4:])


def test_sampler_refuses_too_few_images():
    assert ImageSampler(5, batch_size=64, world_size=2, seed=0).batch_size == 2
    with pytest.raises(DataError, match="too few training images: 3"):
        ImageSampler(3, batch_size=64, world_size=2, seed=0)


def test_split_holds_out_a_share_of_each_class():
    label_N = np.repeat([0, 1, 2], [100, 40, 3])
    rows = split_rows(label_N, np.zeros(143, bool), ("a", "b", "c"), ImageDataConfig(holdout=0.1))
    counts = {name: np.bincount(label_N[row_n]).tolist() for name, row_n in rows.items()}
    assert counts == {"train": [80, 32, 1], "valid": [10, 4, 1], "test": [10, 4, 1]}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(143))
    with pytest.raises(DataError, match="too few images: c: 2"):
        split_rows(label_N[:-1], np.zeros(142, bool), ("a", "b", "c"), ImageDataConfig())


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (8, 8, 1), (5, 17, 3)])
def test_every_architecture_takes_every_size(name, height, width, channels):
    shape = ImageShape(height=height, width=width, channels=channels, num_classes=7)
    config = ImageModelConfig(architecture=name, channels=4, hidden=8)
    image_BCHW = torch.zeros(3, channels, height, width, dtype=torch.uint8)
    assert ImageClassifier(shape, config)(image_BCHW).shape == (3, 7)
    assert activation_floats(shape, config) > 4 * height * width
