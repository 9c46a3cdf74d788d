"""Citations of candidates in the years before a source.

Legend: N papers, S sources, P pairs, K candidates, E citations.
"""

from collections.abc import Iterator

import numpy as np

from citeflow.graph.csr import Csr, rows_of

DAYS_OF_YEAR = 366
"""From a day to the same one a year later, at most: dates may be known to the year only."""

RECENT_YEARS = (1, 3)
"""Lengths of the times before the source in which the citations of a candidate are counted."""


class RecentCitations:
    """Counts the citations of candidates by date."""

    def __init__(self, citations: Csr, day_N: np.ndarray) -> None:
        """Take the citations, from the cited to the citing paper, and the days of the papers."""
        self._citations = citations
        self._day_N = day_N
        self._oldest, self._newest = int(day_N.min()), int(day_N.max())
        self._all_by_day: tuple[np.ndarray, np.ndarray] | None = None

    def count(self, day: np.ndarray, target: np.ndarray) -> Iterator[np.ndarray]:
        """Count the citations of candidates in the years before each source, not on its day.

        So neither the source itself counts, nor a paper that is newer.
        """
        if day.ndim == 2 and len(target) == 1:
            yield from self._of_shared(day.ravel(), target[0])
            return
        # In the order of the papers, neighboring searches end near each other.
        order_P = np.argsort(target, axis=None)
        paper_P = target.ravel()[order_P]
        paper_U, index_P = np.unique(paper_P, return_inverse=True)
        citing = rows_of(self._citations, paper_U)
        # A new paper may be older, or newer, than all others.
        first_day = int(day.min(initial=self._oldest)) - DAYS_OF_YEAR * max(RECENT_YEARS)
        num_days = int(day.max(initial=self._newest)) - first_day + 1
        row_E = np.repeat(np.arange(len(paper_U), dtype=np.int64), citing.degree_N)
        key_E = np.sort(row_E * num_days + (self._day_N.take(citing.col_E) - first_day))
        day_P = np.broadcast_to(day, target.shape).ravel()[order_P]
        key_P = index_P * np.int64(num_days) + (day_P - first_day)
        before_P = np.searchsorted(key_E, key_P)
        for years in RECENT_YEARS:
            count = np.empty(target.shape, dtype=np.float32)
            first_P = np.searchsorted(key_E, key_P - DAYS_OF_YEAR * years)
            count.ravel()[order_P] = before_P - first_P
            yield count

    def _of_shared(self, day_S: np.ndarray, candidate_K: np.ndarray) -> Iterator[np.ndarray]:
        """Count them for candidates that all sources share, [S, K]."""
        if len(day_S) == 1:  # one pass takes less time than the sort that several sources share
            yield from self._of_one(int(day_S[0]), candidate_K)
            return
        if len(candidate_K) < self._citations.num_rows:
            day_E, row_E = self._by_day(candidate_K)
            num_rows, row_K = len(candidate_K), np.arange(len(candidate_K))
        else:
            if self._all_by_day is None:
                self._all_by_day = self._by_day(np.arange(self._citations.num_rows))
            day_E, row_E = self._all_by_day
            num_rows, row_K = self._citations.num_rows, candidate_K
        end_S = np.searchsorted(day_E, day_S)
        for years in RECENT_YEARS:
            count_SK = np.empty((len(day_S), len(candidate_K)), dtype=np.float32)
            first_S = np.searchsorted(day_E, day_S - DAYS_OF_YEAR * years)
            for i, (first, end) in enumerate(zip(first_S, end_S, strict=True)):
                count_K = np.bincount(row_E[first:end], minlength=num_rows)
                count_SK[i] = count_K.take(row_K)
            yield count_SK

    def _of_one(self, day: int, candidate_K: np.ndarray) -> Iterator[np.ndarray]:
        """Count them for the candidates of one source, [1, K]."""
        citing = rows_of(self._citations, candidate_K)
        age_E = day - self._day_N.take(citing.col_E)
        num_E1 = np.zeros(len(age_E) + 1, dtype=np.int64)
        for years in RECENT_YEARS:
            np.cumsum((age_E > 0) & (age_E <= DAYS_OF_YEAR * years), out=num_E1[1:])
            yield np.diff(num_E1.take(citing.rowptr_N1))[None].astype(np.float32)

    def _by_day(self, paper_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the days of the citations of some papers, ascending, and which each is of."""
        citing = rows_of(self._citations, paper_K)
        day_E = self._day_N.take(citing.col_E)
        order_E = np.argsort(day_E)
        return day_E[order_E], np.repeat(np.arange(len(paper_K)), citing.degree_N)[order_E]
