"""Citations that grow year by year: topics, preferential attachment, recency and copied references.

Legend: N papers, T topics, B papers of one year, S reference slots, R references made so far in the year, E citations.
Papers are rows in time order; a topic's neighbours in the hierarchy have neighbouring numbers.
"""

from dataclasses import dataclass

import numpy as np

LEVEL_WIDTHS = (1, 8, 64)
"""Topics in a topic, a subfield and a field; above the field there is the whole graph."""

LEVEL_SHARES = (0.985, 0.01, 0.003, 0.002)
"""How often a reference that is not copied goes to the sister topic (the next one of the paper's subfield), anywhere in
the subfield, in the field, or anywhere."""

REDRAWS = (0, 0, 0, 0, 1, 1)
"""Lowest level at which a reference that came out twice is drawn again, attempt after attempt."""

COPIED = 0.14
"""Share of a reference list that is taken from the lists of the papers it cites."""

HEAD_START = 5.0
"""Added to a paper's citation count in preferential attachment, so that new papers are found at all."""

MEMORY_YEARS = 40.0
"""Age at which a paper's pull has fallen to 1/e."""

LIST_SPREAD = 0.5
"""Standard deviation of the logarithm of the length of a reference list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Papers:
    """What is known of each paper before any of them cites."""

    topic_N: np.ndarray
    """Topic, int32, below `num_topics`."""

    year_N: np.ndarray
    """Year, int32, never falling."""

    fitness_N: np.ndarray
    """Factor on the paper's pull, float32."""

    num_topics: int
    """T."""


class _Pull:
    """Finds papers of a topic in proportion to how strongly they pull citations in a given year."""

    def __init__(self, papers: Papers) -> None:
        self.papers = papers
        self.order_N = np.argsort(papers.topic_N, kind="stable").astype(np.int32)
        self.start_T1 = np.searchsorted(
            papers.topic_N[self.order_N], np.arange(papers.num_topics + 1)
        )
        self.cited_N = np.zeros(len(papers.topic_N), np.int32)
        self.sum_N1 = np.zeros(len(papers.topic_N) + 1)

    def turn_to(self, year: int) -> None:
        """Weigh every paper of the years before `year` as that year sees it."""
        papers = self.papers
        num_older = int(np.searchsorted(papers.year_N, year))
        weight_N = np.zeros(len(papers.year_N), np.float32)
        fading = np.exp((papers.year_N[:num_older] - np.float32(year)) / np.float32(MEMORY_YEARS))
        popularity = self.cited_N[:num_older] + np.float32(HEAD_START)
        weight_N[:num_older] = popularity * papers.fitness_N[:num_older] * fading
        np.cumsum(weight_N[self.order_N], dtype=np.float64, out=self.sum_N1[1:])

    def draw(self, topic_S: np.ndarray, lowest: int, rng: np.random.Generator) -> np.ndarray:
        """One paper per slot, from its sister topic (level 0), subfield, field or anywhere, but none below `lowest`."""
        level_S = np.maximum(
            rng.choice(len(LEVEL_SHARES), size=len(topic_S), p=LEVEL_SHARES), lowest
        )
        width = LEVEL_WIDTHS[1]
        sister_S = topic_S // width * width + (topic_S + 1) % width
        low_S, high_S = np.zeros(len(topic_S)), np.zeros(len(topic_S))
        for level, width in enumerate((*LEVEL_WIDTHS, self.papers.num_topics)):
            at_S = np.flatnonzero((level_S <= level) & (high_S <= low_S))
            first = sister_S[at_S] // width * width
            low_S[at_S] = self.sum_N1[self.start_T1[first]]
            high_S[at_S] = self.sum_N1[
                self.start_T1[np.minimum(first + width, self.papers.num_topics)]
            ]
        point_S = np.minimum(
            low_S + rng.random(len(topic_S)) * (high_S - low_S), np.nextafter(high_S, 0)
        )
        return self.order_N[np.searchsorted(self.sum_N1[1:], point_S, side="right")]

    def count(self, cited_R: np.ndarray) -> None:
        """Take note of new citations."""
        self.cited_N += np.bincount(cited_R, minlength=len(self.cited_N)).astype(np.int32)


def grow(papers: Papers, citations_per_paper: float, rng: np.random.Generator) -> np.ndarray:
    """Let the papers of each year cite papers of earlier years; the same `rng` state gives the same citations.

    Returns edge_2E, int32, sorted by citing and then by cited paper, without duplicates. Papers of the first year cite
    nothing. What a year falls short of the wanted mean, later years make up for.
    """
    num_papers = len(papers.year_N)
    pull = _Pull(papers)
    ref_E = np.empty(int(num_papers * citations_per_paper * 1.01) + 100, np.int32)
    start_N1 = np.zeros(num_papers + 1, np.int64)
    year_starts = np.flatnonzero(np.diff(papers.year_N, prepend=papers.year_N[0] - 1))
    for first, last in zip(year_starts[1:], [*year_starts[2:], num_papers], strict=True):
        pull.turn_to(int(papers.year_N[first]))
        wanted = round(last * citations_per_paper) - int(start_N1[first])
        length_B = _list_lengths(
            last - first, min(wanted / (last - first), 1.5 * citations_per_paper), first, rng
        )
        key_R = _cite(papers.topic_N[first:last], length_B, pull, ref_E, start_N1[: first + 1], rng)
        made = np.bincount(key_R // num_papers, minlength=last - first)
        start_N1[first + 1 : last + 1] = start_N1[first] + np.cumsum(made)
        cited_R = key_R % num_papers
        ref_E[start_N1[first] : start_N1[last]] = cited_R
        pull.count(cited_R)
    source_E = np.repeat(np.arange(num_papers, dtype=np.int32), np.diff(start_N1))
    return np.stack([source_E, ref_E[: len(source_E)]])


def _list_lengths(papers: int, mean: float, num_older: int, rng: np.random.Generator) -> np.ndarray:
    share_B = rng.lognormal(0, LIST_SPREAD, papers)
    length_B = share_B * (mean * papers / share_B.sum()) + rng.random(papers)
    clipped_B: np.ndarray = np.clip(length_B.astype(np.int64), 1, max(1, num_older // 2))
    return clipped_B


def _cite(
    topic_B: np.ndarray,
    length_B: np.ndarray,
    pull: _Pull,
    ref_E: np.ndarray,
    start_N1: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw, copy, and draw what came out twice again and farther away.

    Returns sorted keys [R], citing paper of the year * N + cited paper.
    """
    num_papers, num_citing = len(pull.cited_N), len(length_B)
    drawn_B = length_B - rng.binomial(np.maximum(length_B - 1, 0), COPIED)
    paper_S = np.repeat(np.arange(num_citing), drawn_B)
    key_R = _distinct(paper_S * num_papers + pull.draw(topic_B[paper_S], 0, rng))
    paper_S = np.repeat(np.arange(num_citing), length_B - np.bincount(key_R // num_papers))
    key_R = _distinct(key_R, _copy(paper_S, key_R, ref_E, start_N1, num_papers, rng))
    for lowest in REDRAWS:
        paper_S = np.repeat(np.arange(num_citing), length_B - np.bincount(key_R // num_papers))
        key_R = _distinct(key_R, paper_S * num_papers + pull.draw(topic_B[paper_S], lowest, rng))
    return key_R


def _copy(
    paper_S: np.ndarray,
    key_R: np.ndarray,
    ref_E: np.ndarray,
    start_N1: np.ndarray,
    num_papers: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """For each slot one reference of one paper that the slot's paper cites, as keys; an empty list gives none."""
    end_B = np.cumsum(np.bincount(key_R // num_papers))
    start_S = np.where(paper_S > 0, end_B[paper_S - 1], 0)
    parent_S = key_R[start_S + _pick(end_B[paper_S] - start_S, rng)] % num_papers
    size_S = start_N1[parent_S + 1] - start_N1[parent_S]
    kept = size_S > 0
    copied_S = ref_E[start_N1[parent_S[kept]] + _pick(size_S[kept], rng)]
    copied_key_S: np.ndarray = paper_S[kept] * num_papers + copied_S
    return copied_key_S


def _distinct(*keys: np.ndarray) -> np.ndarray:
    """Sorted keys, each once; numpy's unique, which hashes, takes ten times as long."""
    sorted_R = np.sort(np.concatenate(keys))
    return sorted_R[np.diff(sorted_R, prepend=-1) > 0]


def _pick(size_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picked_S: np.ndarray = (rng.random(len(size_S)) * size_S).astype(np.int64)
    return picked_S
