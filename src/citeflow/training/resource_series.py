"""Resources of all ranks over time: from their samples to `report.Resources`.

Legend: T moments, R ranks, Q quantities.
"""

import math
from collections.abc import Sequence

import numpy as np

from citeflow.report import RankResources, Resources
from citeflow.utils.usage import COUNTERS, Usage

MAX_MOMENTS = 200
"""Points on the time axis of resources.json."""

GAUGES = {
    "memory_bytes": "rss_bytes",
    "shared_bytes": "shared_bytes",
    "container_bytes": "container_bytes",
}
"""Amounts in resources.json, and the fields of Usage that hold them."""

QUANTITIES = (*COUNTERS, *GAUGES)


def summarize(
    of_ranks: Sequence[Sequence[Usage]], local_world_size: int
) -> tuple[Resources, float]:
    """Put the samples of all ranks on one time axis, that of rank 0.

    Args:
        of_ranks: samples by rank.
        local_world_size: ranks of each machine, which share pages of memory.

    Returns:
        The series, and the highest memory of all ranks together in bytes, NaN where it is unknown.
    """
    first = of_ranks[0]
    seconds = first[-1].at - first[0].at if len(first) > 1 else 0.0
    edge_T = np.linspace(0.0, seconds, min(MAX_MOMENTS, max(2, len(first))))
    value_RTQ = np.stack([_resample(edge_T, samples) for samples in of_ranks])
    memory_T = _memory_of_all(value_RTQ, local_world_size)
    peak_bytes = float(max(memory_T[np.isfinite(memory_T)], default=math.nan))
    series = Resources(
        seconds=[round(float(edge), 3) for edge in edge_T[1:]],
        ranks=[_of_rank(rank, value_TQ) for rank, value_TQ in enumerate(value_RTQ)],
    )
    return series, peak_bytes


def _resample(edge_T: np.ndarray, samples: Sequence[Usage]) -> np.ndarray:
    """Return rates between the edges and peaks of memory there, [T - 1, Q]; NaN where unknown."""
    width = np.diff(edge_T)
    if len(samples) < 2 or not width.all():
        return np.full((len(width), len(QUANTITIES)), math.nan)
    fields = {
        name: np.array([getattr(sample, name) for sample in samples]) for name in Usage.__slots__
    }
    at = fields["at"] - samples[0].at
    # A rank that was sampled for a shorter time is unknown from there on, and not constant.
    known = edge_T[1:] <= at[-1] + 2 * width
    growth = [np.diff(np.interp(edge_T, at, fields[key])) / width for key in COUNTERS.values()]
    peaks = [_peak_between(edge_T, at, fields[key]) for key in GAUGES.values()]
    value_TQ: np.ndarray = np.where(known[:, None], np.stack([*growth, *peaks], axis=1), math.nan)
    return value_TQ


def _peak_between(edge_T: np.ndarray, at: np.ndarray, value: np.ndarray) -> np.ndarray:
    at_edge_T = np.interp(edge_T, at, value)
    peak: np.ndarray = np.maximum(at_edge_T[:-1], at_edge_T[1:])
    interval = np.clip(np.searchsorted(edge_T, at) - 1, 0, len(peak) - 1)
    np.maximum.at(peak, interval, value)
    return peak


def _memory_of_all(value_RTQ: np.ndarray, local_world_size: int) -> np.ndarray:
    """Sum the memory of all ranks; what those of a machine share counts once per machine."""
    rss_RT = value_RTQ[:, :, QUANTITIES.index("memory_bytes")]
    shared_RT = value_RTQ[:, :, QUANTITIES.index("shared_bytes")]
    machines = np.arange(0, len(value_RTQ), local_world_size)
    shared_T = np.maximum.reduceat(shared_RT, machines, axis=0).sum(axis=0)
    memory_T: np.ndarray = (rss_RT - shared_RT).sum(axis=0) + shared_T
    return memory_T


def _of_rank(rank: int, value_TQ: np.ndarray) -> RankResources:
    columns = {
        name: [_rounded(value) for value in value_TQ[:, index]]
        for index, name in enumerate(QUANTITIES)
    }
    return RankResources(rank=rank, **columns)


def _rounded(value: float) -> float | None:
    """Drop NaN, which JSON does not have, and digits that say nothing."""
    if not math.isfinite(value):
        return None
    return round(float(value), 3) if value < 1000 else float(round(value))
