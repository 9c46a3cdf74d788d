"""Hold citations out for validation and test, and draw the papers that each is ranked against.

With dates it is the protocol of ogbl-citation2 (Hu et al., Open Graph Benchmark, arXiv 2005.00687,
section 5.4). The task that it stands for is to find references that somebody who writes a paper
today has missed. So the sources are the newest papers, as their authors would ask; everything older
is there to train on. Each source gives two references, one to choose the model by and one to
report, so that both parts are of the same papers and no figure that was used for a choice is
reported. All others stay in the graph: a source without references could only be known by its text.

Every function depends on its arguments alone, the seed included.

Legend: N papers, E citations, P held-out citations, K candidates, S pairs of a sample.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from citeflow.data.citation_graph import HeldOut
from citeflow.errors import DataError
from citeflow.graph.csr import Csr, count_marked, keep_entries, to_undirected


class Candidates(NamedTuple):
    """Numbers of papers that the sources could be ranked against."""

    fewest: int
    median: int
    most: int
    num_short: int
    """Papers, or citations of a random split, that are not held out as they have far fewer."""


class Split(NamedTuple):
    """Training citations, and the two held-out parts."""

    train: Csr
    valid: HeldOut
    test: HeldOut
    candidates: Candidates | None = None
    """None for a dataset's own split."""


LARGEST_SAMPLE = 100_000
"""Citations that are looked up in the other direction."""

BOTH_WAYS = "every link is listed in both directions: keep the one from citing to cited paper"

SHORT = 0.9
"""Sources with less than this share of the usual number of candidates are not taken: all are
ranked against the same number, and one paper that cites nearly everything must not set it."""

MIN_REFERENCES = 3
"""References of a source: two are held out, and one at least stays for the model to know it by."""


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Papers in order of time, so that all papers older than a given one are a prefix."""

    order_N: np.ndarray
    """Rows of papers by day, then row, int32."""

    position_N: np.ndarray
    """Position of each paper in `order_N`, int32."""

    num_older_N: np.ndarray
    """Number of papers that are older than each by at least a day."""


def hold_out_by_date(
    citations: Csr,
    day_N: np.ndarray,
    *,
    share: float,
    num_negatives: int,
    seed: int,
    is_dated_N: np.ndarray | None = None,
) -> Split:
    """Take two references from each of the newest papers: one for validation, one for test.

    Sources are the newest `share * N` papers (at least one) with 3 references or more, two of them
    eligible, and an older paper that they do not cite. A reference is eligible if it is older by at
    least a day and does not cite the source in return, since the undirected graph would otherwise
    still hold the answer. Candidates are drawn evenly from the older papers that the source does
    not cite: a newer one could be ruled out by its date. K is `num_negatives`, or what the source
    with the fewest has, if less; papers with far fewer than the others are no sources.

    Args:
        citations: without self-citations.
        day_N: date of each paper in days.
        is_dated_N: False for papers whose date is not known; they are neither sources nor
            candidates, and none of their citations is held out. None if all are known.
        share: sources, as a share of the papers.
        num_negatives: candidates of each held-out citation.
        seed: of the choice of references and candidates.

    Raises:
        DataError: no paper can be a source.
    """
    if is_dated_N is not None:
        # Newer than every source: no candidates, and never an older paper that is cited.
        day_N = np.where(is_dated_N, day_N, np.iinfo(np.int32).max)
    time = _timeline(day_N)
    is_older_E = _mark_older(citations, day_N)
    num_free_N = time.num_older_N - count_marked(citations, is_older_E)
    is_eligible_E = is_older_E
    is_eligible_E[_cited_back(citations, day_N)] = False
    is_source_N = count_marked(citations, is_eligible_E) >= 2
    is_source_N &= (citations.degree_N >= MIN_REFERENCES) & (num_free_N > 0)
    if is_dated_N is not None:
        is_source_N &= is_dated_N
    newest_first = time.order_N[::-1]
    possible_P = newest_first[is_source_N[newest_first]]
    num_sources = max(1, int(share * len(day_N)))
    if not len(possible_P):
        raise _no_candidates(_why_no_source(citations))
    fewest = _fewest(num_free_N[possible_P[:num_sources]], num_negatives)
    source_P = possible_P[num_free_N[possible_P] >= fewest][:num_sources]
    # One stream for each draw: the candidates of one part do not depend on how many the other
    # takes.
    pick_rng, valid_rng, test_rng = np.random.default_rng(seed).spawn(3)
    pick_2P = _pick_two(citations, is_eligible_E, source_P, pick_rng)
    num_candidates = min(num_negatives, int(num_free_N[source_P].min()))
    parts = [
        HeldOut(
            source_P=source_P,
            target_P=citations.col_E[pick_P],
            negative_PK=_older_uncited(citations, time, source_P, num_candidates, rng),
        )
        for pick_P, rng in zip(pick_2P, (valid_rng, test_rng), strict=True)
    ]
    num_short = int((num_free_N[possible_P[:num_sources]] < fewest).sum())
    candidates = _candidates(num_free_N[source_P], num_short)
    return Split(_without(citations, pick_2P), parts[0], parts[1], candidates)


def hold_out_at_random(citations: Csr, *, share: float, num_negatives: int, seed: int) -> Split:
    """Take random citations: `share * E` (at least one) for validation and as many for test.

    A citation is eligible if the cited paper does not cite back and the source has a paper that it
    is not linked with. Candidates are drawn evenly from the papers that are not linked with the
    source in either direction. K is `num_negatives`, or what the source with the fewest has, if
    less; citations of papers with far fewer than the others are not eligible. At least one citation
    stays for training.

    Args:
        citations: without self-citations.
        share: citations of each part, as a share of all.
        num_negatives: candidates of each held-out citation.
        seed: of the choice of citations and candidates.

    Raises:
        DataError: fewer than two citations are eligible, or none would be left.
    """
    neighbors = to_undirected(citations)
    num_free_N = citations.num_rows - 1 - neighbors.degree_N
    source_E = citations.sources()
    is_eligible_E = num_free_N[source_E] > 0
    for block in citations.blocks():
        is_eligible_E[block.entries] &= citations.find(block.target_B, block.source_B) < 0
    eligible = np.flatnonzero(is_eligible_E)
    eligible, num_short = _without_short(eligible, source_E, num_free_N, num_negatives)
    num_edges = len(source_E)
    num_held = min(max(1, int(share * num_edges)), len(eligible) // 2, (num_edges - 1) // 2)
    if num_held < 1:
        is_both = num_edges and share_both_ways(citations) == 1
        raise _no_candidates(BOTH_WAYS if is_both else "needs 3 citations, and unlinked papers")
    pick_rng, valid_rng, test_rng = np.random.default_rng(seed).spawn(3)
    pick_2P = pick_rng.choice(eligible, size=(2, num_held), replace=False)
    num_candidates = min(num_negatives, int(num_free_N[source_E[pick_2P]].min()))
    parts = [
        HeldOut(
            source_P=source_E[pick_P],
            target_P=citations.col_E[pick_P],
            negative_PK=_unlinked(neighbors, source_E[pick_P], num_candidates, rng),
        )
        for pick_P, rng in zip(pick_2P, (valid_rng, test_rng), strict=True)
    ]
    candidates = _candidates(num_free_N[source_E[pick_2P.ravel()]], num_short)
    return Split(_without(citations, pick_2P), parts[0], parts[1], candidates)


def share_both_ways(citations: Csr) -> float:
    """Measure the share of citations that also run the other way.

    Of a large graph it is the share of an even sample.
    """
    num_edges = len(citations.col_E)
    sample_S = np.arange(0, num_edges, max(1, num_edges // LARGEST_SAMPLE))
    found_S = citations.find(citations.col_E[sample_S], citations.sources_of(sample_S))
    return float((found_S >= 0).mean())


def count_in_training(references: Csr, *parts: HeldOut) -> int:
    """Count held-out citations that are training citations, too, as in some datasets' own split."""
    pairs = [
        (source, target)
        for part in parts
        for source, target in zip(part.source_P, part.target_P, strict=True)
    ]
    return sum(bool((references.row(source) == target).any()) for source, target in pairs)


def count_later(citations: Csr, day_N: np.ndarray | None, is_dated_N: np.ndarray | None) -> int:
    """Count the citations of papers with a later date, where both dates are known."""
    if day_N is None:
        return 0
    num_later = 0
    for block in citations.blocks():
        is_later_B = day_N[block.target_B] > day_N[block.source_B]
        if is_dated_N is not None:
            is_later_B &= is_dated_N[block.target_B] & is_dated_N[block.source_B]
        num_later += int(np.count_nonzero(is_later_B))
    return num_later


def _fewest(num_free_P: np.ndarray, num_negatives: int) -> int:
    """Return the number of candidates that a source needs, given what the usual ones have."""
    usual = min(num_negatives, int(np.median(num_free_P)))
    return max(1, int(SHORT * usual))


def _without_short(
    eligible: np.ndarray, source_E: np.ndarray, num_free_N: np.ndarray, num_negatives: int
) -> tuple[np.ndarray, int]:
    """Leave out the citations of papers with far fewer candidates than the others.

    Returns:
        Those that are left, and the number of the others.
    """
    if not len(eligible):
        return eligible, 0
    # The median of papers, and not of citations, of which one paper may have most.
    fewest = _fewest(num_free_N[np.unique(source_E[eligible])], num_negatives)
    is_short_P = num_free_N[source_E[eligible]] < fewest
    num_short = int(is_short_P.sum())
    if len(eligible) - num_short < 2:
        return eligible, 0
    return eligible[~is_short_P], num_short


def _candidates(num_free_P: np.ndarray, num_short: int) -> Candidates:
    return Candidates(
        int(num_free_P.min()), int(np.median(num_free_P)), int(num_free_P.max()), int(num_short)
    )


def _why_no_source(citations: Csr) -> str:
    """Say what a dated graph without a source most likely suffers from."""
    if share_both_ways(citations) == 1:
        return BOTH_WAYS
    return "needs a paper with 3 references, 2 of them older; without dates the split is random"


def _no_candidates(hint: str) -> DataError:
    return DataError("no test candidates", "no citation can be held out", hint=hint)


def _timeline(day_N: np.ndarray) -> _Timeline:
    order_N = np.argsort(day_N, kind="stable").astype(np.int32)
    position_N = np.empty_like(order_N)
    position_N[order_N] = np.arange(len(order_N), dtype=np.int32)
    return _Timeline(order_N, position_N, np.searchsorted(day_N[order_N], day_N, side="left"))


def _mark_older(citations: Csr, day_N: np.ndarray) -> np.ndarray:
    """Mark the citations of papers that are older by at least a day."""
    is_older_E = np.empty(len(citations.col_E), dtype=bool)
    for block in citations.blocks():
        is_older_E[block.entries] = day_N[block.target_B] < day_N[block.source_B]
    return is_older_E


def _cited_back(citations: Csr, day_N: np.ndarray) -> np.ndarray:
    """List the citations of an older paper that cites the newer one, too: their entries."""
    found = [np.empty(0, np.int64)]
    for source_B, target_B in ((block.source_B, block.target_B) for block in citations.blocks()):
        is_later_B = day_N[target_B] > day_N[source_B]
        if is_later_B.any():
            found.append(citations.find(target_B[is_later_B], source_B[is_later_B]))
    entry_L = np.concatenate(found)
    back: np.ndarray = entry_L[entry_L >= 0]
    return back


def _without(citations: Csr, pick_2P: np.ndarray) -> Csr:
    is_left_E = np.ones(len(citations.col_E), dtype=bool)
    is_left_E[pick_2P] = False
    return keep_entries(citations, is_left_E)


def _pick_two(
    references: Csr, is_eligible_E: np.ndarray, source_P: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Pick two eligible references of each source: positions in `references.col_E`, [2, P]."""
    pick_2P = np.empty((2, len(source_P)), dtype=np.int64)
    for i, source in enumerate(source_P):
        start, end = references.rowptr_N1[source : source + 2]
        pick_2P[:, i] = start + rng.choice(
            np.flatnonzero(is_eligible_E[start:end]), size=2, replace=False
        )
    return pick_2P


def _older_uncited(
    references: Csr,
    time: _Timeline,
    source_P: np.ndarray,
    num_candidates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    negative_PK = np.empty((len(source_P), num_candidates), dtype=np.int32)
    for i, source in enumerate(source_P):
        cited = np.sort(time.position_N[references.row(source)])
        negative_PK[i] = time.order_N[
            _draw(int(time.num_older_N[source]), cited, num_candidates, rng)
        ]
    return negative_PK


def _unlinked(
    neighbors: Csr, source_P: np.ndarray, num_candidates: int, rng: np.random.Generator
) -> np.ndarray:
    negative_PK = np.empty((len(source_P), num_candidates), dtype=np.int32)
    for i, source in enumerate(source_P):
        row = neighbors.row(source)
        taken = np.insert(row, np.searchsorted(row, source), source)
        negative_PK[i] = _draw(neighbors.num_rows, taken, num_candidates, rng)
    return negative_PK


def _draw(limit: int, taken: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw different numbers below `limit`, evenly, none of them in the ascending `taken`.

    Ranks among the free numbers are drawn, and a free number is its rank plus the taken numbers
    before it: no rejection, and no list of the millions of free papers of each source.
    """
    taken = taken[: np.searchsorted(taken, limit)]
    rank = rng.choice(limit - len(taken), size=size, replace=False)
    return rank + np.searchsorted(taken - np.arange(len(taken)), rank, side="right")
