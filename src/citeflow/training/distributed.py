"""The ranks that train together: joining, one small sum per step, shared arrays, and a bound on every wait."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from citeflow.errors import CiteflowError, error_from_dict, error_to_dict, to_user_error
from citeflow.training.shared_memory import shared_array, unshare

JOIN_TIMEOUT_S = 300
"""Longest wait for another rank outside of a step: at the start, for its share of an evaluation, for a checkpoint."""


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that train together."""

    rank: int
    world_size: int
    device: torch.device
    local_world_size: int = 1
    """How many of them are on this machine."""

    in_step: dist.ProcessGroup | None = field(default=None, compare=False)
    """The same ranks with less patience, for what every step waits for; None for the patience of all the rest."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes, logs and keeps the time."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Add values up over all ranks; every rank calls it with as many values, and gets the same sums."""
        return self._sum(values, None)

    def sum_in_step(self, *values: float) -> list[float]:
        """As `sum`, where the other ranks can not be far behind."""
        return self._sum(values, self.in_step)

    def _sum(self, values: tuple[float, ...], group: dist.ProcessGroup | None) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total, group=group)
        sums: list[float] = total.tolist()
        return sums

    def from_first(self, *values: float) -> list[float]:
        """Values of rank 0, on every rank."""
        return self.sum(*(value if self.is_first else 0.0 for value in values))

    def ask_first(self, make: Callable[[], bytes]) -> bytes:
        """What rank 0 makes, on every rank, so that no two of them see different things on a disk.

        Raises:
            CiteflowError: rank 0's, on every rank, so that none waits for the others.
        """
        content, error = b"", b""
        if self.is_first:
            try:
                content = make()
            except (CiteflowError, OSError) as raised:
                error = json.dumps(error_to_dict(to_user_error(raised))).encode()
        if error := self._bytes_from_first(error):
            raise error_from_dict(json.loads(error))
        return self._bytes_from_first(content)

    def _bytes_from_first(self, content: bytes) -> bytes:
        (size,) = self.from_first(len(content))
        buffer = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_first:
            buffer[:] = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)[
                : len(content)
            ]
        if size:
            dist.broadcast(buffer, src=0)
        return buffer.numpy().tobytes()

    def rows(self, num_rows: int) -> range:
        """The rows of a large array that this rank computes."""
        return _rows_of(self.rank, self.world_size, num_rows)

    def empty(self, num_rows: int, width: int) -> Tensor:
        """A float32 array in main memory that the ranks of this machine have in common.

        Raises:
            UnavailableError: neither shared memory nor the disk has room for it.
        """
        if self.local_world_size == 1:
            return torch.empty(num_rows, width)
        machine, local_rank = divmod(self.rank, self.local_world_size)
        (token,) = self.from_first(secrets.randbits(48))
        name, array = f"citeflow-{token:.0f}-{machine}", None
        for turn in ("create", "open"):
            if (turn == "create") == (local_rank == 0):
                array = torch.from_numpy(
                    shared_array(name, (num_rows, width), create=turn == "create")
                )
            self.sum(0)
        if local_rank == 0:
            unshare(name)
        assert array is not None
        return array

    def all_gather_rows(self, x: Tensor) -> None:
        """Wait until every rank has its rows of an array done; rows that another machine computed come from there."""
        self.sum(0)
        if self.local_world_size == self.world_size:
            return
        for rank in range(self.world_size):
            mine = _rows_of(rank, self.world_size, len(x))
            dist.broadcast(x[mine.start : mine.stop], src=rank)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another rank is gone, or was waited for too long."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _rows_of(rank: int, world_size: int, num_rows: int) -> range:
    return range(rank * num_rows // world_size, (rank + 1) * num_rows // world_size)


@contextlib.contextmanager
def joined(step_timeout_s: float = JOIN_TIMEOUT_S) -> Iterator[Group]:
    """Join the ranks that torchrun started, and leave them at the end.

    With a GPU for every rank of this machine they use those and nccl, else the CPU and gloo; arrays in main memory are
    exchanged by gloo in both cases.

    Args:
        step_timeout_s: longest wait for another rank within a step.
    """
    local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])
    on_gpu = torch.cuda.device_count() >= local_world_size
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=JOIN_TIMEOUT_S))
    try:
        in_step = dist.new_group(timeout=timedelta(seconds=step_timeout_s))
        yield Group(dist.get_rank(), dist.get_world_size(), device, local_world_size, in_step)
    finally:
        dist.destroy_process_group()
