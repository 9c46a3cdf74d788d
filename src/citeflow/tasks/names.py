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
