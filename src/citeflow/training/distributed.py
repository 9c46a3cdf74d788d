"""The process group of a training: collectives of torch.distributed, each with a timeout."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import Store

from citeflow.errors import CiteflowError, error_from_dict, error_to_dict, to_user_error
from citeflow.utils.large_arrays import large_array, shared_array, unshare

GROUP_TIMEOUT_S = 300
"""Longest wait for another rank outside of a step: at start, validation or checkpoint."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """The process group, as one of its ranks sees it."""

    rank: int
    world_size: int
    device: torch.device
    local_world_size: int = 1
    """Ranks on this machine."""

    step_group: dist.ProcessGroup | None = field(default=None, compare=False)
    """The same ranks with a shorter timeout, for the collectives of a step; None for the default
    group."""

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes and logs."""
        return self.rank == 0

    @property
    def is_local_main(self) -> bool:
        """True on the first rank of each machine."""
        return self.rank % self.local_world_size == 0

    def barrier(self) -> None:
        """Block until every rank is here."""
        dist.barrier()

    def all_reduce(self, *values: float) -> list[float]:
        """Sum values over all ranks, in float64; every rank gets the same sums."""
        return self._all_reduce(values, None)

    def all_reduce_in_step(self, *values: float) -> list[float]:
        """Sum as `all_reduce` does, with the timeout of a step."""
        return self._all_reduce(values, self.step_group)

    def _all_reduce(
        self, values: tuple[float, ...], group: dist.ProcessGroup | None
    ) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total, group=group)
        sums: list[float] = total.tolist()
        return sums

    def broadcast_in_step(self, value: float) -> float:
        """Return rank 0's value on every rank, with the timeout of a step."""
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, src=0, group=self.step_group)
        return tensor.item()

    def broadcast_object(self, make: Callable[[], T], *, source: int = 0) -> T:
        """Return on every rank what `make` returns on one of them, where alone it is called.

        So no two ranks act on different views of a disk.

        Raises:
            CiteflowError: `make` failed there; raised on every rank, so that none waits for it.
        """
        message: list[object] = [None, None]
        if self.rank == source:
            try:
                message[0] = make()
            except (CiteflowError, OSError) as error:
                message[1] = error_to_dict(to_user_error(error))
        dist.broadcast_object_list(message, src=source)
        result, error_record = message
        if error_record is not None:
            raise error_from_dict(cast(dict[str, object], error_record))
        return cast(T, result)

    def all_gather_object(self, value: T) -> list[T]:
        """Return what every rank gave, in the order of the ranks."""
        gathered: list[T | None] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return cast(list[T], gathered)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every rank the buffers of rank 0's model, those that a checkpoint holds.

        Batch norm, for one, has running statistics of the samples that its own rank has seen.
        """
        if self.world_size == 1 or not list(model.buffers()):
            return
        buffers = self.broadcast_object(
            lambda: {name: buffer.cpu() for name, buffer in model.named_buffers()}
        )
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])

    def broadcast_buffers_in_step(self, model: nn.Module) -> None:
        """Do the same after a step, with its timeout: any rank may have to hand over its state."""
        buffers = list(model.buffers())
        # float64 holds every float32, and any count of batches that there will be.
        values = torch.cat([buffer.double().flatten() for buffer in buffers])
        dist.broadcast(values, src=0, group=self.step_group)
        parts = torch.split(values, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def rows(self, num_rows: int) -> range:
        """Return the rows of a large array that this rank computes."""
        return _rows_of_rank(self.rank, self.world_size, num_rows)

    def empty(self, num_rows: int, width: int) -> Tensor:
        """Allocate a float32 array, in memory or on the disk, for all ranks of this machine.

        Raises:
            CiteflowError: neither has room for it.
        """
        if self.local_world_size == 1:
            return torch.from_numpy(large_array((num_rows, width)))
        token = self.broadcast_object(lambda: secrets.token_hex(6))
        name = f"citeflow-{token}-{self.rank // self.local_world_size}"
        shape = (num_rows, width)
        created = shared_array(name, shape, create=True) if self.is_local_main else None
        self.barrier()
        array = shared_array(name, shape, create=False) if created is None else created
        self.barrier()
        if self.is_local_main:
            unshare(name)
        return torch.from_numpy(array)

    def all_gather_rows(self, x: Tensor) -> None:
        """Complete an array of which every rank has computed its own rows.

        Ranks of one machine share its memory, so only rows of other machines are sent.
        """
        self.barrier()
        if self.local_world_size == self.world_size:
            return
        for rank in range(self.world_size):
            rows = _rows_of_rank(rank, self.world_size, len(x))
            dist.broadcast(x[rows.start : rows.stop], src=rank)


def is_lost_peer(error: RuntimeError) -> bool:
    """Return True if an error says that another rank is gone, or did not answer in time."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _rows_of_rank(rank: int, world_size: int, num_rows: int) -> range:
    return range(rank * num_rows // world_size, (rank + 1) * num_rows // world_size)


@contextlib.contextmanager
def init_group(
    step_timeout_s: float = GROUP_TIMEOUT_S, store: Store | None = None
) -> Iterator[Group]:
    """Join the ranks that torchrun started, and leave them at the end of the block.

    With a GPU for every rank of this machine they use those and nccl, else the CPU and gloo. Arrays
    in main memory go through gloo in both cases.

    Args:
        step_timeout_s: longest wait for another rank within a step.
        store: where the ranks meet; None for the one that torchrun's variables name.
    """
    local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])
    on_gpu = torch.cuda.device_count() >= local_world_size
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(
        backend,
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=GROUP_TIMEOUT_S),
    )
    try:
        # A rank that hangs in a step is noticed within seconds, while one that reads a cold disk or
        # computes its share of a validation may take minutes: two timeouts take two groups.
        step_group = dist.new_group(timeout=timedelta(seconds=step_timeout_s))
        yield Group(dist.get_rank(), dist.get_world_size(), device, local_world_size, step_group)
    finally:
        dist.destroy_process_group()
