"""Answers: the papers that a paper should cite, and which of them are wanted.

torch is not imported here, so that a client of a server needs none.
"""

from dataclasses import dataclass
from typing import Literal

from citeflow.errors import CiteflowError
from citeflow.evaluation.queries import QueryPaper
from citeflow.evaluation.reasons import Reason

Method = Literal["walk", "exact"]
"""Candidates: those that a walk of the graph reaches, or all papers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One paper that is probably missing from a list of references."""

    rank: int
    """1 for the likeliest."""

    id: int | str
    title: str | None
    date: str | None
    """ISO date, where it is known."""

    logit: float
    probability: float
    """That of telling the paper from one random paper, not that of a citation among all papers."""

    is_cited: bool
    """It is cited already, which is listed with `exclude_cited=False` only."""

    reasons: tuple[Reason, ...]
    """At most three, the strongest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The predictions for one paper."""

    query: QueryPaper
    predictions: tuple[Prediction, ...] = ()
    remarks: tuple[str, ...] = ()
    """What was left out, and where the model is out of its depth."""

    method: Method = "exact"
    """How the candidates were chosen."""

    num_candidates: int = 0
    """Papers that were ranked."""

    error: CiteflowError | None = None
    """Why there are no predictions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which papers are listed."""

    k: int = 10
    """Length of the list."""

    exclude_cited: bool = True
    """Leave out what the paper cites already, its held-out citations included."""

    since: str = ""
    """Date or year that candidates are not older than."""

    exact: bool = True
    """Rank all papers, and not only those that a walk of the graph reaches."""
