"""The examples of one's own models: they fit the interface, and the page shows them."""

import pytest

from citeflow.evaluation.trained_model import build_encoder
from citeflow.tasks import load_settings
from citeflow.tasks.images.models import ImageShape
from citeflow.tasks.images.trained_model import build_network


@pytest.fixture(scope="module")
def folder(checkout):
    return checkout / "examples" / "own_model"


def test_encoder_fits_the_citation_task(folder):
    encoder = build_encoder((folder / "encoder.py").read_text(), 7, load_settings())
    assert len(encoder.mean_F) == 7


@pytest.mark.parametrize("side", [8, 28])
def test_classifier_fits_the_image_task(folder, side):
    shape = ImageShape(height=side, width=side, channels=1, num_classes=10)
    network = build_network((folder / "classifier.py").read_text(), shape, load_settings("images"))
    assert sum(each.numel() for each in network.parameters()) > 1000


def test_page_shows_the_files_as_they_are(folder, checkout):
    page = (checkout / "docs" / "own-model.md").read_text()
    for file in sorted(folder.glob("*.py")):
        assert file.read_text().rstrip() in page
