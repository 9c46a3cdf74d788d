"""Reasons for a prediction: the papers between source and candidate, and how alike the two are.

Every reason is read off the training citations, so a paper or a citation that it names exists, and
a citation that is held out is none. A path weighs as in the structural features
(`models.structural`): one over the papers that each paper between leads on to. With the choice of
the first paper, that is the chance that a random walk of this kind ends at the candidate, by which
kinds of any length compare.

Legend: N papers, K candidates, S papers one step from the source, L papers one step before
candidates, E papers one step before those, H papers on paths.
"""

from collections.abc import Iterator, Sequence
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

MOST_AT_ONCE = 64
"""Candidates whose paths are looked for at a time: a bound on the memory for those cited most."""

OF_SIMILAR = ("reference_of_similar",)
"""Kinds that take features of the source's own."""


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
    """Row in between of each path."""

    citing_H: np.ndarray
    """Row of the citing paper of each path of three; empty for paths of two."""

    weight_H: np.ndarray
    """Weight of each path."""

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
    candidate_K: np.ndarray,
    *,
    names: Names,
    cosines: Sequence[float | None],
    kind: Kind,
) -> Iterator[tuple[Reason, ...]]:
    """List at most three reasons for each candidate, the strongest first.

    Where nothing speaks for one, it has none.

    Args:
        graph: training citations.
        source: the paper that is asked for.
        candidate_K: rows of the predicted ones.
        names: of the papers of the graph.
        cosines: of the features of source and candidates; None where they say nothing.
        kind: `similar_text` or `similar_features`.
    """
    found = find_evidence(graph, source, candidate_K)
    for candidate, cosine, paths in zip(candidate_K.tolist(), cosines, found, strict=True):
        if cosine is None:
            paths = [each for each in paths if each.kind not in OF_SIMILAR]
        others = []
        if cosine is not None and (cosine >= ALIKE or (not paths and cosine > 0)):
            others = [_of_pair(kind, cosine, f"{kind.replace('_', ' ')} {cosine:.2f}")]
        num_citations = len(graph.citations.row(candidate))
        if not paths and num_citations:
            text = f"cited by {plural(num_citations, 'paper')} of the graph"
            others.append(_of_pair("popularity", num_citations, text))
        yield (*(_describe(each, names) for each in paths[: MOST - len(others)]), *others)


def _of_pair(kind: Kind, value: float, text: str) -> Reason:
    return Reason(kind=kind, papers=(), num_papers=0, value=float(value), text=text)


def find_evidence(
    graph: PreparedGraph, source: Source, candidate_K: np.ndarray
) -> Iterator[list[Evidence]]:
    """List the paths from a source to each candidate by kind, the heaviest kind first."""
    first = {name: _First.of(paper_S, graph.num_papers) for name, paper_S in source.hops.items()}
    for begin in range(0, len(candidate_K), MOST_AT_ONCE):
        part_K = candidate_K[begin : begin + MOST_AT_ONCE]
        citing = rows_of(graph.citations, part_K)
        citing = _only(citing, citing.col_E != source.row)
        cited, cites = first["references"], rows_of(graph.references, part_K)
        found = [
            _over_one("reference_of_reference", part_K, cited, citing, graph.references),
            _over_one("bibliographic_coupling", part_K, cited, cites, graph.citations),
            _over_one("cited_together", part_K, first["citations"], citing, graph.references),
            _over_two(graph, part_K, cited, citing),
        ]
        if (similar := graph.similar) is not None:
            like, alike = first["similar"], rows_of(similar, part_K)
            found += [
                _over_one("reference_of_similar", part_K, like, citing, graph.references),
                _over_one("similar_to_reference", part_K, cited, alike, similar),
            ]
        for number in range(len(part_K)):
            of_candidate = [each[number] for each in found if number in each]
            yield sorted(of_candidate, key=lambda each: -each.weight)


@dataclass(frozen=True, slots=True)
class _First:
    """Papers one step from the source."""

    is_in_N: np.ndarray
    size: int

    @classmethod
    def of(cls, paper_S: np.ndarray, num_papers: int) -> "_First":
        is_in_N = np.zeros(num_papers, dtype=bool)
        is_in_N[paper_S] = True
        return cls(is_in_N, len(paper_S))


def _only(rows: Csr, is_kept_E: np.ndarray) -> Csr:
    """Keep some entries of rows."""
    kept_H = np.flatnonzero(is_kept_E)
    return Csr(np.searchsorted(kept_H, rows.rowptr_N1), rows.col_E[kept_H])


def _over_one(
    kind: Kind, candidate_K: np.ndarray, first: _First, last: Csr, next_hop: Csr
) -> dict[int, Evidence]:
    """Weigh paths over one paper by the number of papers that it leads on to.

    Args:
        kind: of the paths.
        candidate_K: where they end.
        first: papers one step from the source.
        last: papers one step before each candidate, K rows.
        next_hop: that from paper to candidate.

    Returns:
        Paths by the number of the candidate, where it has any.
    """
    passed = _only(last, first.is_in_N[last.col_E])
    weight_H = 1 / np.maximum(_degrees(next_hop, passed.col_E), 1)
    return _by_candidate(kind, candidate_K, first, passed, passed.col_E[:0], weight_H)


def _over_two(
    graph: PreparedGraph, candidate_K: np.ndarray, cited: _First, citing: Csr
) -> dict[int, Evidence]:
    """Weigh paths over a reference of the source, and a paper that cites it and the candidate."""
    rows = rows_of(graph.references, citing.col_E)
    passed_H = np.flatnonzero(cited.is_in_N[rows.col_E])
    ptr_K1 = np.searchsorted(passed_H, rows.rowptr_N1[citing.rowptr_N1])
    # Where the source cites the candidate, that is no paper in between.
    is_other_H = rows.col_E[passed_H] != np.repeat(candidate_K, np.diff(ptr_K1))
    kept = _only(Csr(ptr_K1, passed_H), is_other_H)
    passed = Csr(kept.rowptr_N1, rows.col_E[kept.col_E])
    citing_H = citing.col_E[np.searchsorted(rows.rowptr_N1, kept.col_E, side="right") - 1]
    weight_H = 1 / (_degrees(graph.citations, passed.col_E) * _degrees(graph.references, citing_H))
    return _by_candidate("co_citation", candidate_K, cited, passed, citing_H, weight_H)


def _by_candidate(
    kind: Kind,
    candidate_K: np.ndarray,
    first: _First,
    passed: Csr,
    citing_H: np.ndarray,
    weight_H: np.ndarray,
) -> dict[int, Evidence]:
    found = {}
    ptr_K1 = passed.rowptr_N1.tolist()
    for number, candidate in enumerate(candidate_K.tolist()):
        paths = slice(ptr_K1[number], ptr_K1[number + 1])
        if paths.start == paths.stop:
            continue
        size = first.size
        if kind != "cited_together":  # else the candidate, cited or similar, is no way to itself
            size -= int(first.is_in_N[candidate])
        found[number] = Evidence(
            kind=kind,
            paper_H=passed.col_E[paths],
            citing_H=citing_H[paths],
            weight_H=weight_H[paths],
            weight=float(weight_H[paths].sum()) / size,
        )
    return found


def _degrees(csr: Csr, paper_H: np.ndarray) -> np.ndarray:
    return np.asarray(csr.rowptr_N1[paper_H + 1] - csr.rowptr_N1[paper_H], dtype=np.float64)


def _by_weight(paper_H: np.ndarray, weight_H: np.ndarray) -> np.ndarray:
    """Return the distinct papers, that with the largest sum of weights first."""
    paper_U, inverse_H = np.unique(paper_H, return_inverse=True)
    weight_U = np.bincount(inverse_H, weight_H, len(paper_U))
    return np.asarray(paper_U[np.argsort(-weight_U, kind="stable")])


def _describe(evidence: Evidence, names: Names) -> Reason:
    citing_H = evidence.citing_H
    if len(citing_H):
        paper_H = _by_weight(evidence.paper_H, evidence.weight_H)
        citing_H = _by_weight(citing_H, evidence.weight_H)
    else:
        paper_H = evidence.paper_H[np.argsort(-evidence.weight_H, kind="stable")]
    shown = _shown(paper_H, names)
    several = len(paper_H) > 1
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
        citing = _shown(citing_H, names)
        text = f"cited together with {shown}, which you cite, by {citing}"
    return Reason(
        kind=evidence.kind,
        papers=tuple(names.ids[row] for row in paper_H[:MOST].tolist()),
        num_papers=len(paper_H),
        citing=tuple(names.ids[row] for row in citing_H[:MOST].tolist()),
        num_citing=len(citing_H),
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
