"""Remarks on the citations of a dataset, for log and report: dropped, swapped, listed twice.

Legend: E citations, N papers, S some of them.
"""

import numpy as np

from citeflow.data.citation_graph import CitationGraph
from citeflow.data.diagnosis import plural, quote
from citeflow.errors import DataError
from citeflow.graph.csr import Csr
from citeflow.graph.split import count_later, share_both_ways
from citeflow.report import WARNING
from citeflow.utils.large_arrays import count_values

SWAPPED = 0.9
"""Share of citations of later papers from which on they are taken for swapped."""

MANY_BOTH = 0.2
"""Share of citations in both directions that a citation network does not have."""

NUM_SHOWN = 3
"""Citations that are shown of those dropped."""


def describe_direction(graph: CitationGraph, citations: Csr) -> list[str]:
    """Say if citations seem to run the wrong way, or both ways.

    Raises:
        DataError: nearly all of them go to later papers.
    """
    num_edges = len(citations.col_E)
    found = []
    share_both = share_both_ways(citations) if graph.split is None else 0
    if share_both > MANY_BOTH:
        found.append(
            f"{WARNING}: {share_both:.0%} of the citations are listed in both directions; keep the "
            "one from citing to cited paper"
        )
    num_later = count_later(citations, graph.day_N, graph.is_dated_N)
    swapped = f"{num_later:,} of {num_edges:,} citations go to a later paper"
    if graph.split is None and num_later > SWAPPED * num_edges:
        hint = "are citing and cited swapped? exchange the names of the columns"
        raise DataError("no test candidates", swapped, hint=hint)
    if 2 * num_later > num_edges and not found:
        found.append(f"{WARNING}: {swapped}: are citing and cited swapped?")
    return found


def describe_dropped(
    graph: CitationGraph, citations: Csr, num_self: int, num_duplicates: int
) -> list[str]:
    """Say which citations are dropped that have no meaning, with the first ones of each kind."""
    source_E, target_E = graph.edge_2E
    is_self_E = source_E == target_E
    said = []
    if num_self:
        row_S = source_E[np.flatnonzero(is_self_E)[:NUM_SHOWN]]
        shown = ", ".join(quote(each) for each in graph.id_N[row_S].tolist())
        said.append(f"{plural(num_self, 'self-citation')} dropped, such as of {shown}")
    if num_duplicates:
        num_given_N = count_values(source_E, citations.num_rows)
        num_given_N -= count_values(source_E[is_self_E], citations.num_rows)
        repeating_S = np.flatnonzero(num_given_N > citations.degree_N)[:NUM_SHOWN]
        is_theirs_E = np.isin(source_E, repeating_S) & ~is_self_E
        pairs, counts = np.unique(graph.edge_2E[:, is_theirs_E], axis=1, return_counts=True)
        shown = ", ".join(
            f"{quote(graph.id_N[source])} to {quote(graph.id_N[target])}"
            for source, target in pairs[:, counts > 1][:, :NUM_SHOWN].T.tolist()
        )
        said.append(f"{plural(num_duplicates, 'repeated citation')} dropped, such as {shown}")
    return said
