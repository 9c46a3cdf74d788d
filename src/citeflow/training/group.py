"""The ranks that train together: joining, one small sum per step, and a bound on every wait."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

JOIN_TIMEOUT_S = 300
"""Longest wait for another rank; the longest that one rank computes alone is one evaluation."""


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that train together."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank writes, logs and keeps the time."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Add values up over all ranks; every rank calls it with as many values, and gets the same sums."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def from_first(self, *values: float) -> list[float]:
        """Values of rank 0, on every rank."""
        return self.sum(*(value if self.is_first else 0.0 for value in values))


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Join the ranks that torchrun started, and leave them at the end.

    With a GPU for every rank of this machine they use those and nccl, else the CPU and gloo.
    """
    on_gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=JOIN_TIMEOUT_S))
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
