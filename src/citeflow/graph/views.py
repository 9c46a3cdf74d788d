"""The graph as somebody else would see it.

Without the references of some papers, or at an earlier time.

A view is a PreparedGraph with adjacency in memory, so that whatever embeds papers and scores pairs
takes it as it takes the graph itself. All other arrays are the graph's own maps.

Legend: S sources.
"""

import dataclasses

import numpy as np

from citeflow.graph.csr import Csr, drop_rows, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.time_slices import TimeSlice, newer_papers


def without_references(graph: PreparedGraph, source_S: np.ndarray) -> PreparedGraph:
    """Take all references of some papers away, as if nobody knew yet what they cite.

    What cites these papers, their features and their dates stay.
    """
    return _with_references(graph, drop_rows(graph.references, source_S))


def without_later_citations(graph: PreparedGraph, part: TimeSlice) -> PreparedGraph:
    """Take away the citations that papers newer than the sources of a slice have made.

    The sources keep their own references. In a slice of one date that is exact; in a longer one its
    older sources see the references of its newer sources.
    """
    assert graph.day_N is not None
    newer = newer_papers(part, graph.day_N, graph.is_dated_N)
    return _with_references(graph, drop_rows(graph.references, newer))


def _with_references(graph: PreparedGraph, references: Csr) -> PreparedGraph:
    return dataclasses.replace(
        graph,
        references=references,
        citations=transpose(references),
        neighbors=to_undirected(references),
    )
