"""Views of a PreparedGraph in memory: the same papers with something more, or less, about them.

Legend: N papers, P new papers, F features.
"""

import dataclasses

import numpy as np

from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.similar import nearest_papers


def with_papers(
    graph: PreparedGraph,
    x_PF: np.ndarray | None,
    references: Csr,
    day_P: np.ndarray | None,
) -> PreparedGraph:
    """Append papers that cite papers of the graph; their rows are N to N + P - 1.

    Only they see their references, and the papers that are similar to them: the rows of the N
    papers stay as they are, so that these are embedded as without the new papers, and no new paper
    sees another. The arrays are copied, which takes as much memory as the graph.

    Args:
        graph: N papers.
        x_PF: features of the new papers; None where the graph has none.
        references: papers of the graph that each new paper cites, ascending; P rows.
        day_P: their dates in days; None where the graph has none.
    """
    x_NF, day_N = _append(graph.x_NF, x_PF), _append(graph.day_N, day_P)
    similar = graph.similar
    if similar is not None and x_NF is not None:
        # As many as the others have: those that found a paper are similar to it, too.
        k = max(1, round(len(similar.col_E) / graph.num_papers))
        rows = nearest_papers(x_NF, day_N, num_searched=graph.num_papers, k=k)
        similar = _append_rows(similar, rows)
    return dataclasses.replace(
        graph,
        x_NF=x_NF,
        day_N=day_N,
        is_dated_N=_append(graph.is_dated_N, np.ones(references.num_rows, dtype=bool)),
        references=_append_rows(graph.references, references),
        citations=_append_rows(graph.citations, _empty_rows(references.num_rows)),
        neighbors=_append_rows(graph.neighbors, references),
        similar=similar,
    )


def _append(array_N: np.ndarray | None, array_P: np.ndarray | None) -> np.ndarray | None:
    if array_N is None or array_P is None:
        return None
    return np.concatenate([array_N, array_P.astype(array_N.dtype, copy=False)])


def _append_rows(csr: Csr, rows: Csr) -> Csr:
    return Csr(
        np.concatenate([csr.rowptr_N1, csr.rowptr_N1[-1] + rows.rowptr_N1[1:]]),
        np.concatenate([csr.col_E, rows.col_E.astype(np.int32, copy=False)]),
    )


def _empty_rows(num_rows: int) -> Csr:
    return Csr(np.zeros(num_rows + 1, dtype=np.int64), np.empty(0, dtype=np.int32))
