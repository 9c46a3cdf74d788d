"""Slices of time: sources of near dates, which are scored in one view of the graph.

Legend: N papers, P held-out citations, S sources, U distinct dates.
"""

from dataclasses import dataclass

import numpy as np

MOST = 16
"""Slices of a split, at most: each costs a view of the graph and an embedding of all papers."""


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """The sources of one date, or of several that follow each other."""

    first: int
    """Day of the oldest source."""

    last: int
    """Day of the newest one."""

    source_S: np.ndarray
    """Its sources, each once."""

    def rows(self, day_P: np.ndarray) -> np.ndarray:
        """Return the indices of the sources of a split, given by date, that lie in the slice."""
        return np.flatnonzero((day_P >= self.first) & (day_P <= self.last))


def time_slices(source_P: np.ndarray, day_N: np.ndarray, most: int = MOST) -> list[TimeSlice]:
    """Deal sources to slices of about the same number by date, oldest first; a date is in one.

    With no more than `most` dates, each has a slice of its own.
    """
    source_S = np.unique(source_P)
    day_S = day_N[source_S]
    day_U, count_U = np.unique(day_S, return_counts=True)
    slice_U = np.arange(len(day_U))
    if len(day_U) > most:
        middle_U = np.cumsum(count_U) - count_U / 2
        slice_U = (middle_U * most / len(source_S)).astype(np.int64)
    slices = []
    for i in np.unique(slice_U):
        first, last = day_U[slice_U == i][[0, -1]].tolist()
        slices.append(TimeSlice(first, last, source_S[(day_S >= first) & (day_S <= last)]))
    return slices


def newer_papers(
    part: TimeSlice, day_N: np.ndarray, is_dated_N: np.ndarray | None = None
) -> np.ndarray:
    """List the papers that are newer than a slice's oldest source and none of its sources.

    Papers whose date is not known are not newer.
    """
    is_newer_N: np.ndarray = day_N > part.first
    if is_dated_N is not None:
        is_newer_N = is_newer_N & is_dated_N
    is_newer_N[part.source_S] = False
    return np.flatnonzero(is_newer_N)
