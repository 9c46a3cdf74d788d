"""The source of a query: a paper of the graph, or one that cites papers of it and is not in it.

A new paper knows its references, and nothing of the graph knows the new paper. So whatever starts
at a source takes the first hop from here, and the arrays of the graph stay as they are: nothing is
copied for a query, and no query sees another.

Legend: N papers, F features.
"""

from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph

NOBODY = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A paper that candidates are ranked for, with its first hops."""

    row: int
    """Its row; N for a new paper, which no row of the graph leads to."""

    hops: dict[str, np.ndarray]
    """Papers that it leads to along each relation of the graph: references, citations, neighbors,
    and similar where the graph has that; rows, ascending, int32."""

    day: int | None
    """Its date in days since 1970-01-01, where papers have dates."""

    is_dated: bool
    """False where the date is not known."""

    x_F: np.ndarray | None
    """Its features; None where papers have none."""

    @classmethod
    def stored(cls, graph: PreparedGraph, row: int) -> "Source":
        """Take a paper of the graph."""
        return cls(
            row=row,
            hops={name: csr.row(row) for name, csr in relations(graph).items()},
            day=None if graph.day_N is None else int(graph.day_N[row]),
            is_dated=graph.is_dated_N is None or bool(graph.is_dated_N[row]),
            x_F=None if graph.x_NF is None else np.asarray(graph.x_NF[row], dtype=np.float32),
        )

    @classmethod
    def new(
        cls,
        graph: PreparedGraph,
        *,
        x_F: np.ndarray | None,
        reference_R: np.ndarray,
        similar_k: np.ndarray,
        day: int,
    ) -> "Source":
        """Take a paper that is not in the graph.

        Args:
            graph: what it cites.
            x_F: its features; None where papers have none.
            reference_R: rows that it cites, ascending.
            similar_k: rows whose features are most alike, ascending.
            day: its date; not looked at where papers have none.
        """
        known = {"references": reference_R, "neighbors": reference_R, "similar": similar_k}
        return cls(
            row=graph.num_papers,
            hops={name: known.get(name, NOBODY) for name in relations(graph)},
            day=None if graph.day_N is None else day,
            is_dated=True,
            x_F=x_F,
        )


def relations(graph: PreparedGraph) -> dict[str, Csr]:
    """Return the relations that a graph has, by name."""
    found = {
        "references": graph.references,
        "citations": graph.citations,
        "neighbors": graph.neighbors,
    }
    return found if graph.similar is None else {**found, "similar": graph.similar}
