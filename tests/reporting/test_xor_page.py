import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from citeflow.reporting import xor

LABELS = (
    "no hidden layer, train",
    "no hidden layer, test",
    "one hidden layer, train",
    "one hidden layer, test",
)


def found(epochs):
    def model(parameters, level):
        curve = {"loss": [1 - level] * epochs, "accuracy": [level] * epochs}
        return {"hidden": 0, "parameters": parameters, "train": curve, "test": curve}

    settings = {
        "dims": 2,
        "train_points": 10_000,
        "test_points": 100,
        "epochs": epochs,
        "hidden": 4,
        "lr": 0.02,
    }
    models = {"no hidden layer": model(3, 0.5), "one hidden layer": model(17, 0.99)}
    return {
        "settings": {**settings, "seed": 0},
        "verdict": "It is <so>.",
        "as_known": True,
        "models": models,
    }


def drawings(text):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]


def words(drawing):
    return [
        "".join(each.itertext()).strip()
        for each in drawing.iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.fixture(params=[1, 2, 1_000])
def page(request):
    return xor.render_comparison(found(request.param))


def test_both_figures_name_every_curve_and_every_unit(page):
    accuracy, loss = (words(drawing) for drawing in drawings(page))
    for told in (accuracy, loss):
        assert set(LABELS) <= set(told)
        assert {"0.0", "1.0", "Epoch"} <= set(told)
    assert "Accuracy (share)" in accuracy
    assert "Loss (bits)" in loss


def test_every_curve_leaves_a_mark_even_after_one_epoch(page):
    for drawing in drawings(page):
        assert len(list(drawing.iter("{http://www.w3.org/2000/svg}use"))) > 2 * len(LABELS)


def test_the_page_needs_no_network_and_no_script_and_escapes_what_it_is_given(page):
    assert not re.search(r"<script|<link|<img|\bsrc=|@import", page)
    assert "It is &lt;so&gt;." in page
    assert "10,000" in page


def test_the_points_are_drawn_in_two_colours_with_their_labels():
    x = np.random.default_rng(0).random((300, 2))
    text = xor.render_points(x, (x[:, 0] > 0.5).astype(int), total=5_000)
    (drawing,) = drawings(text)
    assert {"label 0", "label 1", "first coordinate", "second coordinate"} <= set(words(drawing))
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}use"))) >= 300
    assert "The first 300 of 5,000 training points." in text
    assert "All training points." in xor.render_points(x, x[:, 0] > 0.5, total=300)
