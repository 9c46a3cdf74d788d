"""The resources of all ranks over time, on one axis, gathered by adding arrays up.

Legend: T moments, R ranks, Q quantities.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from citeflow.utils.usage import COUNTED, Usage

Json = dict[str, Any]
Sum = Callable[..., list[float]]

HELD = {
    "memory_bytes": "rss_bytes",
    "shared_bytes": "shared_bytes",
    "container_bytes": "container_bytes",
}
NAMES = (*COUNTED, *HELD)
MOST_MOMENTS = 200
PLACES = 3


def gather(
    samples: Sequence[Usage], *, rank: int, world_size: int, local_world_size: int, add_up: Sum
) -> tuple[Json, float]:
    """Bring the samples of all ranks together; every rank calls it, and gets the same.

    Args:
        samples: of this rank, since all began.
        rank: which it is.
        world_size: how many there are.
        local_world_size: how many of them share a machine, and so pages of memory.
        add_up: sums of values over all ranks.

    Returns:
        Content of resources.json, and the highest memory of all ranks together in bytes, NaN where it is unknown.
    """
    length = (len(samples), samples[-1].at - samples[0].at) if len(samples) > 1 else (0, 0.0)
    moments, seconds = add_up(*(length if rank == 0 else (0.0, 0.0)))
    edge_T = np.linspace(0.0, seconds, min(MOST_MOMENTS, max(2, round(moments))))
    part_RTQ = np.zeros((world_size, len(edge_T) - 1, len(NAMES)))
    part_RTQ[rank] = _at(edge_T, samples)
    all_RTQ = np.array(add_up(*part_RTQ.ravel())).reshape(part_RTQ.shape)
    together_T = _together(all_RTQ, local_world_size)
    peak = float(max(together_T[np.isfinite(together_T)], default=math.nan))
    ranks = [{"rank": each, **_named(all_RTQ[each])} for each in range(world_size)]
    return {"seconds": [round(float(edge), PLACES) for edge in edge_T[1:]], "ranks": ranks}, peak


def _at(edge_T: np.ndarray, samples: Sequence[Usage]) -> np.ndarray:
    """Rates between edges, and the most that was held there, as an array [T - 1, Q]; NaN where nothing was sampled."""
    width = edge_T[1:] - edge_T[:-1]
    if len(samples) < 2 or not width.all():
        return np.full((len(width), len(NAMES)), math.nan)
    at = np.array([sample.at - samples[0].at for sample in samples])
    column = {
        name: np.array([getattr(sample, name) for sample in samples]) for name in Usage.__slots__
    }
    known = edge_T[1:] <= at[-1] + 2 * width
    counted = [np.diff(np.interp(edge_T, at, column[key])) / width for key in COUNTED.values()]
    held = [_most(edge_T, at, column[key]) for key in HELD.values()]
    value_TQ: np.ndarray = np.where(known[:, None], np.stack([*counted, *held], axis=1), math.nan)
    return value_TQ


def _most(edge_T: np.ndarray, at: np.ndarray, value: np.ndarray) -> np.ndarray:
    at_edge_T = np.interp(edge_T, at, value)
    most: np.ndarray = np.maximum(at_edge_T[:-1], at_edge_T[1:])
    place = np.clip(np.searchsorted(edge_T, at) - 1, 0, len(most) - 1)
    np.maximum.at(most, place, value)
    return most


def _together(all_RTQ: np.ndarray, local_world_size: int) -> np.ndarray:
    """Memory of all ranks in bytes; what the ranks of a machine share counts once for each machine."""
    rss_RT, shared_RT = (
        all_RTQ[:, :, NAMES.index(name)] for name in ("memory_bytes", "shared_bytes")
    )
    machines = np.arange(0, len(all_RTQ), local_world_size)
    shared_T = np.maximum.reduceat(shared_RT, machines, axis=0).sum(axis=0)
    together_T: np.ndarray = (rss_RT - shared_RT).sum(axis=0) + shared_T
    return together_T


def _named(value_TQ: np.ndarray) -> Json:
    return {
        name: [_plain(value) for value in value_TQ[:, index]] for index, name in enumerate(NAMES)
    }


def _plain(value: float) -> float | None:
    """As JSON has it: no NaN, and no digits that say nothing."""
    if not math.isfinite(value):
        return None
    return round(float(value), PLACES) if value < 1000 else round(value)
