import numpy as np
import pytest

from citeflow.errors import ConfigError
from citeflow.experiments.xor import (
    ABOVE,
    BELOW,
    WITH,
    WITHOUT,
    History,
    XorSettings,
    asdict,
    compare,
    make_points,
    parity,
    train,
)

SMALL = XorSettings(train_points=200, test_points=50, epochs=3, hidden=4)


def both(settings):
    points = make_points(settings)
    return [train(*points, settings, hidden=hidden) for hidden in (0, settings.hidden)]


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_a_label_is_1_where_an_odd_number_of_coordinates_is_in_the_upper_half(dims):
    points, _ = make_points(XorSettings(dims=dims, train_points=5_000))
    signs = np.sign(0.5 - points.x_ND).prod(axis=1)
    assert points.x_ND.shape == (5_000, dims)
    np.testing.assert_array_equal(points.label_N, np.where(signs < 0, 1, 0))
    assert abs(points.label_N.mean() - 0.5) < 0.03


def test_the_corners_of_the_square_are_the_truth_table_of_xor():
    assert parity(np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).tolist() == [0, 1, 1, 0]


def test_points_fill_the_unit_cube_evenly_and_none_is_in_both_sets():
    points, test = make_points(XorSettings(dims=3))
    assert (len(points.x_ND), len(test.x_ND)) == (10_000, 1_000)
    counts = np.histogramdd(points.x_ND, bins=2, range=[(0, 1)] * 3)[0]
    assert (abs(counts / 10_000 - 1 / 8) < 0.015).all()
    assert not {tuple(row) for row in points.x_ND} & {tuple(row) for row in test.x_ND}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_known_result_comes_out(seed):
    settings = XorSettings(seed=seed)
    flat, deep = both(settings)
    assert max(flat.test.accuracy[-1], flat.train.accuracy[-1]) < 0.70
    assert deep.test.accuracy[-1] > 0.97
    assert deep.test.loss[-1] < 0.2 < 0.95 < flat.test.loss[-1]
    found = compare([flat, deep], settings)
    assert found["as_known"] is True
    assert "can not separate XOR" in found["verdict"]


def test_no_line_comes_near_the_bound_for_a_model_without_a_hidden_layer():
    grid = (np.stack(np.meshgrid(*[np.arange(200)] * 2), axis=-1).reshape(-1, 2) + 0.5) / 200
    label = parity(grid)
    best = 0.0
    for angle in np.linspace(0, np.pi, 64, endpoint=False):
        order = np.argsort(grid @ [np.cos(angle), np.sin(angle)])
        gained = np.cumsum(2 * label[order] - 1)
        share = (len(label) - label.sum() + gained) / len(label)
        best = max(best, share.max(), (1 - share).max())
    assert best == pytest.approx(2 / 3, abs=0.01)
    assert best < BELOW < ABOVE


def test_the_same_seed_gives_the_same_bits_and_another_one_other_figures():
    first, again, other = (
        both(settings) for settings in (SMALL, SMALL, XorSettings(**{**asdict(SMALL), "seed": 1}))
    )
    assert first == again
    assert first[1].train.loss != other[1].train.loss


def test_both_models_differ_in_nothing_but_the_hidden_layer():
    flat, deep = both(SMALL)
    assert (flat.parameters, deep.parameters) == (2 + 1, (2 + 1) * 4 + (4 + 1))
    assert {len(curve) for model in (flat, deep) for part in (model.train, model.test)
            for curve in (part.loss, part.accuracy)} == {SMALL.epochs}  # fmt: skip


def test_loss_is_in_bits_between_0_and_1():
    wild = XorSettings(train_points=20, test_points=100, epochs=30, hidden=64, lr=1.0)
    flat, deep = both(wild)
    curves = [curve for model in (flat, deep) for part in (model.train, model.test)
              for curve in (part.loss, part.accuracy)]  # fmt: skip
    assert all(0.0 <= value <= 1.0 for curve in curves for value in curve)
    assert 1.0 in deep.test.loss


def test_loss_agrees_with_that_of_scikit_learn():
    from sklearn.metrics import log_loss

    from citeflow.experiments.xor import Curve, _score

    probability, label, curve = np.array([0.9, 0.2, 0.6]), np.array([1, 0, 1]), Curve()
    _score(curve, probability, label)
    assert curve.loss == [pytest.approx(log_loss(label, probability) / np.log(2))]
    assert curve.accuracy == [1.0]


def test_a_history_comes_back_from_json():
    _, deep = both(SMALL)
    assert History.from_dict(asdict(deep)) == deep


def test_settings_come_back_from_an_artifact_whose_whole_numbers_are_floats():
    floats = {name: float(value) for name, value in asdict(SMALL).items()} | {"other": "x"}
    again = XorSettings.from_dict(floats)
    assert again == SMALL
    assert isinstance(again.epochs, int)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dims", 0), ("dims", 101), ("train_points", 9), ("test_points", 0), ("epochs", 0), ("hidden", 0), ("lr", 0.0),
     ("lr", float("nan")), ("seed", -1)],
)  # fmt: skip
def test_a_parameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        XorSettings(**{name: value})
    assert "must be between" in caught.value.hint


@pytest.mark.parametrize(
    ("dims", "words"), [(1, "needs no hidden layer"), (2, "epochs"), (3, "More dimensions")]
)
def test_a_result_that_is_not_the_known_one_is_told_in_plain_words(dims, words):
    settings = XorSettings(**{**asdict(SMALL), "dims": dims, "epochs": 1})
    found = compare(both(settings), settings)
    assert found["as_known"] is False
    assert "did not come out" in found["verdict"]
    assert words in found["verdict"]
    assert list(found["models"]) == [WITHOUT, WITH]
