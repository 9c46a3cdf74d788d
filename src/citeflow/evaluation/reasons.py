"""Reasons for a prediction: the papers between source and candidate, and how alike the two are.

Every reason is read off the training citations, so a paper or a citation that it names exists, and
a citation that is held out is none. A path weighs as in the structural features
(`models.structural`): one over the papers that each paper between leads on to. With the choice of
the first paper, that is the chance that a random walk of this kind ends at the candidate, by which
kinds of any length compare.

Legend: S papers one step from the source, H papers on paths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from citeflow.data.diagnosis import plural
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.source import Source

MOST = 3
"""Reasons of a prediction, and papers that one names, at most."""

ALIKE = 0.5
"""Cosine similarity from which on it is a reason beside paths."""

Kind = Literal[
    "reference_of_reference",
    "bibliographic_coupling",
    "co_citation",
    "cited_together",
    "reference_of_similar",
    "similar_to_reference",
    "similar_text",
    "similar_features",
    "popularity",
]

OF_SIMILAR = ("reference_of_similar",)
"""Kinds that take features of the source's own."""

Similarity = Callable[[Source, int], float | None]
"""Cosine of the features of source and candidate; None where they say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One thing that speaks for a prediction."""

    kind: Kind
    papers: tuple[int | str, ...]
    """Papers in between, the heaviest first: references of the source; of `cited_together` papers
    that cite source and candidate; of `reference_of_similar` papers that are like the source."""

    num_papers: int
    """Count of all such papers."""

    citing: tuple[int | str, ...] = ()
    """For `co_citation`: papers that cite the candidate together with those."""

    num_citing: int = 0
    """Count of all such papers."""

    value: float
    """Chance of such a random walk, cosine, or number of citations."""

    text: str
    """The reason in words, for those who ask for the source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Paths of one kind between two papers."""

    kind: Kind
    paper_H: np.ndarray
    """Rows in between, the heaviest first."""

    citing_H: np.ndarray
    """Rows of citing papers on paths of three."""

    weight: float
    """Sum of the weights of all paths, over the number of papers that the first step has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Identifiers and titles of the papers."""

    ids: Sequence[int] | Sequence[str]
    titles: Sequence[str] | None

    def label(self, row: int) -> str:
        """Name a paper: its title, cut where it is long, with its identifier."""
        title = self.titles[row].strip() if self.titles else ""
        if not title:
            return str(self.ids[row])
        short = title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 3].rstrip()}..."
        return f'"{short}" ({self.ids[row]})'


MAX_TITLE = 60


def find_reasons(
    graph: PreparedGraph,
    source: Source,
    candidate: int,
    *,
    names: Names,
    similarity: Similarity,
    kind: Kind,
) -> tuple[Reason, ...]:
    """List at most three reasons, the strongest first; where nothing speaks for it, none.

    Args:
        graph: training citations.
        source: the paper that is asked for.
        candidate: row of the predicted one.
        names: of the papers of the graph.
        similarity: of the features.
        kind: `similar_text` or `similar_features`.
    """
    others = []
    cosine = similarity(source, candidate)
    found = [
        each
        for each in find_evidence(graph, source, candidate)
        if each.weight and (cosine is not None or each.kind not in OF_SIMILAR)
    ]
    paths = [_describe(each, names) for each in found]
    if cosine is not None and (cosine >= ALIKE or (not paths and cosine > 0)):
        others = [_of_pair(kind, cosine, f"{kind.replace('_', ' ')} {cosine:.2f}")]
    num_citations = len(graph.citations.row(candidate))
    if not paths and num_citations:
        text = f"cited by {plural(num_citations, 'paper')} of the graph"
        others.append(_of_pair("popularity", num_citations, text))
    return (*paths[: MOST - len(others)], *others)


def _of_pair(kind: Kind, value: float, text: str) -> Reason:
    return Reason(kind=kind, papers=(), num_papers=0, value=float(value), text=text)


def find_evidence(graph: PreparedGraph, source: Source, candidate: int) -> list[Evidence]:
    """List the paths from a source to a candidate by kind, the heaviest kind first."""
    references, citations = graph.references, graph.citations
    cited_S = source.hops["references"]
    cited_S = np.asarray(cited_S[cited_S != candidate])
    citing = np.asarray(citations.row(candidate))
    citing = citing[citing != source.row]
    found = [
        _over_one("reference_of_reference", cited_S, citing, references),
        _over_one("bibliographic_coupling", cited_S, references.row(candidate), citations),
        _over_one("cited_together", source.hops["citations"], citing, references),
        _over_two(graph, cited_S, citing),
    ]
    if (similar := graph.similar) is not None:
        like_S = source.hops["similar"]
        found += [
            _over_one("reference_of_similar", like_S[like_S != candidate], citing, references),
            _over_one("similar_to_reference", cited_S, similar.row(candidate), similar),
        ]
    return sorted(found, key=lambda each: -each.weight)


def _over_one(kind: Kind, first_S: np.ndarray, last: np.ndarray, next_hop: Csr) -> Evidence:
    """Weigh paths over one paper by the number of papers that it leads on to.

    Args:
        kind: of the paths.
        first_S: papers one step from the source.
        last: papers one step before the candidate.
        next_hop: that from paper to candidate.
    """
    paper_H = np.intersect1d(first_S, last, assume_unique=True)
    weight_H = 1 / np.maximum(_degrees(next_hop, paper_H), 1)
    return Evidence(
        kind=kind,
        paper_H=paper_H[np.argsort(-weight_H, kind="stable")],
        citing_H=paper_H[:0],
        weight=float(weight_H.sum()) / max(len(first_S), 1),
    )


def _over_two(graph: PreparedGraph, cited_S: np.ndarray, citing: np.ndarray) -> Evidence:
    """Weigh paths over a reference of the source, and a paper that cites it and the candidate."""
    rows = rows_of(graph.references, citing)
    passed = np.flatnonzero(np.isin(rows.col_E, cited_S))
    paper_H = rows.col_E[passed]
    citing_H = np.repeat(citing, rows.degree_N)[passed]
    weight_H = 1 / (_degrees(graph.citations, paper_H) * _degrees(graph.references, citing_H))
    return Evidence(
        kind="co_citation",
        paper_H=_by_weight(paper_H, weight_H),
        citing_H=_by_weight(citing_H, weight_H),
        weight=float(weight_H.sum()) / max(len(cited_S), 1),
    )


def _degrees(csr: Csr, paper_H: np.ndarray) -> np.ndarray:
    return np.asarray(csr.rowptr_N1[paper_H + 1] - csr.rowptr_N1[paper_H], dtype=np.float64)


def _by_weight(paper_H: np.ndarray, weight_H: np.ndarray) -> np.ndarray:
    """Return the distinct papers, that with the largest sum of weights first."""
    paper_U, inverse_H = np.unique(paper_H, return_inverse=True)
    weight_U = np.bincount(inverse_H, weight_H, len(paper_U))
    return np.asarray(paper_U[np.argsort(-weight_U, kind="stable")])


def _describe(evidence: Evidence, names: Names) -> Reason:
    shown = _shown(evidence.paper_H, names)
    several = len(evidence.paper_H) > 1
    if evidence.kind == "reference_of_reference":
        text = f"cited by {shown}, which you cite"
    elif evidence.kind == "bibliographic_coupling":
        text = f"cites {shown}, which you cite too"
    elif evidence.kind == "cited_together":
        text = f"{shown} {'cite' if several else 'cites'} both this and your paper"
    elif evidence.kind == "reference_of_similar":
        text = f"cited by {shown}, {'which are' if several else 'which is'} like your paper"
    elif evidence.kind == "similar_to_reference":
        text = f"like {shown}, which you cite"
    else:
        citing = _shown(evidence.citing_H, names)
        text = f"cited together with {shown}, which you cite, by {citing}"
    return Reason(
        kind=evidence.kind,
        papers=tuple(names.ids[row] for row in evidence.paper_H[:MOST].tolist()),
        num_papers=len(evidence.paper_H),
        citing=tuple(names.ids[row] for row in evidence.citing_H[:MOST].tolist()),
        num_citing=len(evidence.citing_H),
        value=evidence.weight,
        text=text,
    )


def _shown(paper_H: np.ndarray, names: Names) -> str:
    """Name the heaviest two papers, and count the others."""
    labels = [names.label(row) for row in paper_H[:2].tolist()]
    more = len(paper_H) - len(labels)
    if more:
        return f"{', '.join(labels)} and {more:,} more"
    return " and ".join(labels)
