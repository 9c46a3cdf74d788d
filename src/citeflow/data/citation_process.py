"""A generative model of citations, year by year.

Preferential attachment with fitness and ageing (Barabasi and Albert 1999; Bianconi and Barabasi
2001; Wang, Song and Barabasi 2013) inside topics, and a share of references that are copied from
the papers cited (Krapivsky and Redner 2005), which closes triangles.

Legend: N papers, T topics, B papers of one year, S reference slots, R references drawn so far in
the year, E citations. Papers are rows in time order; topics of one subfield have consecutive
numbers.
"""

from dataclasses import dataclass

import numpy as np

LEVEL_WIDTHS = (1, 8, 64)
"""Number of topics in a topic, a subfield and a field; above the field is the whole graph."""

LEVEL_SHARES = (0.985, 0.01, 0.003, 0.002)
"""Probability that a reference that is not copied goes to the sister topic (the next one of the
paper's subfield), anywhere in the subfield, in the field, or anywhere."""

REDRAWS = (0, 0, 0, 0, 1, 1)
"""Lowest level at which a duplicate reference is drawn again, attempt by attempt."""

COPY_SHARE = 0.14
"""Share of a reference list that is copied from the lists of the papers it cites."""

INITIAL_ATTRACTIVENESS = 5.0
"""Added to a paper's citation count, so that papers without citations are cited at all."""

AGEING_YEARS = 40.0
"""Age at which a paper's attractiveness has fallen to 1/e."""

LENGTH_SIGMA = 0.5
"""Standard deviation of the logarithm of the length of a reference list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Papers:
    """Attributes of the papers, drawn before any of them cites."""

    topic_N: np.ndarray
    """Topic, int32, below `num_topics`."""

    year_N: np.ndarray
    """Year, int32, never falling."""

    fitness_N: np.ndarray
    """Factor on the paper's attractiveness, float32."""

    num_topics: int
    """T."""


class PreferentialAttachment:
    """Draws papers of a topic in proportion to (citations + constant) * fitness * ageing.

    Papers are kept in the order of their topics with a running sum of weights, so that a topic, a
    subfield or a field is one interval of the sum, and a draw is one binary search.
    """

    def __init__(self, papers: Papers) -> None:
        """Begin with papers that nobody has cited yet."""
        self.papers = papers
        self.order_N = np.argsort(papers.topic_N, kind="stable").astype(np.int32)
        self.start_T1 = np.searchsorted(
            papers.topic_N[self.order_N], np.arange(papers.num_topics + 1)
        )
        self.cited_N = np.zeros(len(papers.topic_N), np.int32)
        self.sum_N1 = np.zeros(len(papers.topic_N) + 1)

    def set_year(self, year: int) -> None:
        """Compute the weights of the papers that are older than a year; all others get 0."""
        papers = self.papers
        num_older = int(np.searchsorted(papers.year_N, year))
        weight_N = np.zeros(len(papers.year_N), np.float32)
        fading = np.exp((papers.year_N[:num_older] - np.float32(year)) / np.float32(AGEING_YEARS))
        popularity = self.cited_N[:num_older] + np.float32(INITIAL_ATTRACTIVENESS)
        weight_N[:num_older] = popularity * papers.fitness_N[:num_older] * fading
        np.cumsum(weight_N[self.order_N], dtype=np.float64, out=self.sum_N1[1:])

    def sample(
        self, topic_S: np.ndarray, lowest_level: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one paper per slot.

        Args:
            topic_S: topic of the citing paper.
            lowest_level: 0 allows the sister topic, 1 the subfield, 2 the field, 3 the whole graph.
            rng: advanced by two draws per slot.
        """
        level_S = np.maximum(
            rng.choice(len(LEVEL_SHARES), size=len(topic_S), p=LEVEL_SHARES), lowest_level
        )
        width = LEVEL_WIDTHS[1]
        sister_S = topic_S // width * width + (topic_S + 1) % width
        low_S = np.zeros(len(topic_S))
        high_S = np.zeros(len(topic_S))
        # A level without weight, such as a topic with no older papers, is left to the next one up.
        for level, width in enumerate((*LEVEL_WIDTHS, self.papers.num_topics)):
            at_S = np.flatnonzero((level_S <= level) & (high_S <= low_S))
            first = sister_S[at_S] // width * width
            low_S[at_S] = self.sum_N1[self.start_T1[first]]
            high_S[at_S] = self.sum_N1[
                self.start_T1[np.minimum(first + width, self.papers.num_topics)]
            ]
        # low + share * (high - low) may round up to high, which belongs to the next interval.
        point_S = np.minimum(
            low_S + rng.random(len(topic_S)) * (high_S - low_S), np.nextafter(high_S, 0)
        )
        return self.order_N[np.searchsorted(self.sum_N1[1:], point_S, side="right")]

    def add_citations(self, cited_R: np.ndarray) -> None:
        """Count new citations; they have an effect from the next `set_year`."""
        self.cited_N += np.bincount(cited_R, minlength=len(self.cited_N)).astype(np.int32)


def simulate_citations(
    papers: Papers, citations_per_paper: float, rng: np.random.Generator
) -> np.ndarray:
    """Let the papers of each year cite papers of earlier years.

    Papers of the first year cite nothing. Where a year falls short of the mean, later ones make up
    for it. The same state of `rng` gives the same citations.

    Returns:
        edge_2E, int32, sorted by citing and then by cited paper, without duplicates.
    """
    num_papers = len(papers.year_N)
    attachment = PreferentialAttachment(papers)
    # The references of all papers in one array, list after list, so that copying can look them up;
    # its length allows for the rounding of list lengths.
    ref_E = np.empty(int(num_papers * citations_per_paper * 1.01) + 100, np.int32)
    start_N1 = np.zeros(num_papers + 1, np.int64)
    year_starts = np.flatnonzero(np.diff(papers.year_N, prepend=papers.year_N[0] - 1))
    for first, last in zip(year_starts[1:], [*year_starts[2:], num_papers], strict=True):
        attachment.set_year(int(papers.year_N[first]))
        num_wanted = round(last * citations_per_paper) - int(start_N1[first])
        mean_length = min(num_wanted / (last - first), 1.5 * citations_per_paper)
        length_B = _sample_lengths(last - first, mean_length, first, rng)
        topic_B = papers.topic_N[first:last]
        key_R = _cite(topic_B, length_B, attachment, ref_E, start_N1[: first + 1], rng)
        num_refs_B = np.bincount(key_R // num_papers, minlength=last - first)
        start_N1[first + 1 : last + 1] = start_N1[first] + np.cumsum(num_refs_B)
        cited_R = key_R % num_papers
        ref_E[start_N1[first] : start_N1[last]] = cited_R
        attachment.add_citations(cited_R)
    edge_2E = np.empty((2, start_N1[-1]), np.int32)
    edge_2E[1] = ref_E[: edge_2E.shape[1]]
    del ref_E
    edge_2E[0] = np.repeat(np.arange(num_papers, dtype=np.int32), np.diff(start_N1))
    return edge_2E


def _sample_lengths(
    num_papers: int, mean: float, num_older: int, rng: np.random.Generator
) -> np.ndarray:
    share_B = rng.lognormal(0, LENGTH_SIGMA, num_papers)
    # A uniform number below 1 is added before truncation: rounding that keeps the mean.
    length_B = share_B * (mean * num_papers / share_B.sum()) + rng.random(num_papers)
    clipped_B: np.ndarray = np.clip(length_B.astype(np.int64), 1, max(1, num_older // 2))
    return clipped_B


def _cite(
    topic_B: np.ndarray,
    length_B: np.ndarray,
    attachment: PreferentialAttachment,
    ref_E: np.ndarray,
    start_N1: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw references, copy others, and replace duplicates by papers that are farther away.

    Returns:
        Sorted keys [R]: citing paper of the year * N + cited paper.
    """
    num_papers = len(attachment.cited_N)
    num_citing = len(length_B)
    drawn_B = length_B - rng.binomial(np.maximum(length_B - 1, 0), COPY_SHARE)
    paper_S = np.repeat(np.arange(num_citing), drawn_B)
    key_R = _distinct(paper_S * num_papers + attachment.sample(topic_B[paper_S], 0, rng))
    paper_S = np.repeat(np.arange(num_citing), length_B - np.bincount(key_R // num_papers))
    key_R = _distinct(key_R, _copy(paper_S, key_R, ref_E, start_N1, num_papers, rng))
    for lowest_level in REDRAWS:
        paper_S = np.repeat(np.arange(num_citing), length_B - np.bincount(key_R // num_papers))
        key_R = _distinct(
            key_R, paper_S * num_papers + attachment.sample(topic_B[paper_S], lowest_level, rng)
        )
    return key_R


def _copy(
    paper_S: np.ndarray,
    key_R: np.ndarray,
    ref_E: np.ndarray,
    start_N1: np.ndarray,
    num_papers: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Copy, for each slot, a random reference of a random paper that its paper cites, as keys.

    A paper without references gives none.
    """
    end_B = np.cumsum(np.bincount(key_R // num_papers))
    start_S = np.where(paper_S > 0, end_B[paper_S - 1], 0)
    parent_S = key_R[start_S + _pick(end_B[paper_S] - start_S, rng)] % num_papers
    size_S = start_N1[parent_S + 1] - start_N1[parent_S]
    kept = size_S > 0
    copied_S = ref_E[start_N1[parent_S[kept]] + _pick(size_S[kept], rng)]
    copied_key_S: np.ndarray = paper_S[kept] * num_papers + copied_S
    return copied_key_S


def _distinct(*keys: np.ndarray) -> np.ndarray:
    """Sort keys and drop duplicates; np.unique, which hashes, takes ten times as long."""
    sorted_R = np.sort(np.concatenate(keys))
    return sorted_R[np.diff(sorted_R, prepend=-1) > 0]


def _pick(size_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picked_S: np.ndarray = (rng.random(len(size_S)) * size_S).astype(np.int64)
    return picked_S
