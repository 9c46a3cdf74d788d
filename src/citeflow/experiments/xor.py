"""The XOR of rounded coordinates: what no network learns without a hidden layer, and a small one does with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from citeflow.errors import ConfigError

BELOW = 0.70
"""Test accuracy that stays out of reach without a hidden layer: in the plane the best line is right on two thirds."""

ABOVE = 0.97
"""Test accuracy that one hidden layer exceeds."""

WITHOUT, WITH = "no hidden layer", "one hidden layer"


def _number(default: float, lowest: float, highest: float) -> Any:
    return field(default=default, metadata={"lowest": lowest, "highest": highest})


@dataclass(frozen=True, kw_only=True, slots=True)
class XorSettings:
    """What the points and both models are made from; a value out of its range is a ConfigError."""

    dims: int = _number(2, 1, 100)
    """Coordinates of a point."""

    train_points: int = _number(10_000, 10, 100_000)
    test_points: int = _number(1_000, 10, 100_000)
    epochs: int = _number(40, 1, 10_000)
    """Passes over the training points."""

    hidden: int = _number(32, 1, 10_000)
    """Units of the hidden layer, where there is one."""

    lr: float = _number(0.02, 1e-6, 1.0)
    """Learning rate of Adam."""

    seed: int = _number(0, 0, 2**32 - 1)

    def __post_init__(self) -> None:
        for each in fields(self):
            value, lowest, highest = (
                getattr(self, each.name),
                each.metadata["lowest"],
                each.metadata["highest"],
            )
            if not lowest <= value <= highest:
                raise ConfigError(
                    each.name, value, hint=f"must be between {lowest:g} and {highest:g}"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "XorSettings":
        """What `asdict` made of one, even where whole numbers have become floats since, among other values."""
        return cls(**{name: type(default)(values[name]) for name, default in asdict(cls()).items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Points of the unit cube and their labels; N points, D dimensions."""

    x_ND: np.ndarray
    label_N: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Figures of one set of points after each epoch, all between 0 and 1."""

    loss: list[float] = field(default_factory=list)
    """Cross-entropy in bits per point; 1 is a guess, and whatever is worse."""

    accuracy: list[float] = field(default_factory=list)
    """Share of the points that get their label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What training one model gave."""

    hidden: int
    """Units of the hidden layer; 0 if there is none."""

    parameters: int
    train: Curve
    test: Curve

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "History":
        """What `asdict` made of one."""
        curves = {name: Curve(**values[name]) for name in ("train", "test")}
        return cls(hidden=int(values["hidden"]), parameters=int(values["parameters"]), **curves)


def make_points(settings: XorSettings) -> tuple[Points, Points]:
    """Draw the training and the test points."""
    rng = np.random.default_rng(settings.seed)
    return _draw(rng, settings.train_points, settings.dims), _draw(
        rng, settings.test_points, settings.dims
    )


def _draw(rng: np.random.Generator, count: int, dims: int) -> Points:
    x_ND = rng.random((count, dims))
    return Points(x_ND=x_ND, label_N=parity(x_ND))


def parity(x_ND: np.ndarray) -> np.ndarray:
    """XOR of the rounded coordinates: 1 where an odd number of them rounds to 1."""
    ones_N: np.ndarray = np.rint(x_ND).astype(np.int64).sum(axis=1)
    return ones_N % 2


def train(points: Points, test: Points, settings: XorSettings, *, hidden: int) -> History:
    """Fit scikit-learn's MLPClassifier and score it after each epoch.

    Args:
        points: to learn from.
        test: to score on as well.
        settings: epochs, learning rate and seed.
        hidden: units of the hidden layer; 0 leaves it out.
    """
    from sklearn.neural_network import MLPClassifier

    layers = (hidden,) if hidden else ()
    model = MLPClassifier(
        hidden_layer_sizes=layers, learning_rate_init=settings.lr, random_state=settings.seed
    )
    curves = Curve(), Curve()
    for _ in range(settings.epochs):
        model.partial_fit(points.x_ND, points.label_N, classes=(0, 1))
        for curve, scored in zip(curves, (points, test), strict=True):
            _score(curve, model.predict_proba(scored.x_ND)[:, 1], scored.label_N)
    count = sum(array.size for array in (*model.coefs_, *model.intercepts_))
    return History(hidden=hidden, parameters=count, train=curves[0], test=curves[1])


def _score(curve: Curve, probability_N: np.ndarray, label_N: np.ndarray) -> None:
    of_label_N = np.where(label_N == 1, probability_N, 1.0 - probability_N)
    bits = float(-np.log2(np.maximum(of_label_N, math.ulp(0.5))).mean())
    curve.loss.append(min(1.0, bits))
    curve.accuracy.append(float(((probability_N > 0.5) == (label_N == 1)).mean()))


def compare(histories: Sequence[History], settings: XorSettings) -> dict[str, Any]:
    """Both models beside each other, the one without a hidden layer first: content of xor.json."""
    flat, deep = histories
    known = flat.test.accuracy[-1] < BELOW and deep.test.accuracy[-1] > ABOVE
    models = {name: asdict(each) for name, each in zip((WITHOUT, WITH), histories, strict=True)}
    return {
        "settings": asdict(settings),
        "verdict": _verdict(flat, deep, known=known, dims=settings.dims),
        "as_known": known,
        "models": models,
    }


HINTS = {1: "One dimension needs no hidden layer.", 2: "More epochs or points help."}


def _verdict(flat: History, deep: History, *, known: bool, dims: int) -> str:
    reached = [f"{100 * each.test.accuracy[-1]:.1f} %" for each in (flat, deep)]
    if known:
        return (
            f"A model without a hidden layer can not separate XOR: it is right on {reached[0]} of the test points. "
            f"With {deep.hidden} hidden units it is right on {reached[1]}."
        )
    hint = HINTS.get(dims, "More dimensions need more points, epochs and hidden units.")
    return (
        f"The known result did not come out: {reached[0]} of the test points are right without a hidden layer "
        f"(known: below {100 * BELOW:.0f} %), {reached[1]} with one (known: above {100 * ABOVE:.0f} %). "
        f"{hint}"
    )
