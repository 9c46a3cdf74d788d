"""Words of a task for records, logs and metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Names that a task gives to things that every training has."""

    score: str
    """The validation score: `valid_` and a metric."""

    metric: str
    """Label of that metric, as within a sentence."""

    samples: str
    """Samples, in the plural."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """A validation score by which settings are chosen, and the score of the test like it."""

    name: str
    """Of the figure: `valid_` and a metric."""

    label: str
    """As a title."""

    test_label: str
    """Label of the score of the test, as within a sentence."""

    curve: str
    """Tag of TensorBoard of its curve in training; empty where there is none."""

    curve_label: str
    """Label of that curve, which may be of a score that only stands near."""

    protocol: str = ""
    """Protocol of the score, where the task has several."""
