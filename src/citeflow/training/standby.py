"""A standby for each worker: it has imported all that a worker needs, and forks it.

torchrun starts a standby where it would start a worker. When the worker is lost, its standby forks
another one at once, and torchrun does not hear of it. Workers meet at a store in the standby of
rank 0: as often as one of them is lost, all that are left end, each having handed over its state,
and their successors form the next group. Where a standby is lost, or does not come back, torchrun
starts all of them again.
"""

import dataclasses
import itertools
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from citeflow.training.distributed import GROUP_TIMEOUT_S
from citeflow.training.forks import Child, close_listeners, set_process_name
from citeflow.training.handover import Handover
from citeflow.training.preemption import LOST_PEER
from citeflow.utils.logging import log

LOOK_S = 0.5
"""Time between two looks of a standby at the store."""

GONE_S = 5.0
"""A standby that has not been at the store for so long is taken for lost."""

STILL_S = 30.0
"""Time for a worker to end when it was told that another one is lost; then it is killed."""

POLL_S = 0.02

MAX_LOST_UNMET = 3
"""Workers in a row that a standby may lose before they have met the others."""

STORE_TIMEOUT_S = 10
"""Longest wait of a standby for the store."""

GENERATION = "generation"
"""Key of the number of groups that were formed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """The place of a worker in every group of one torchrun."""

    rank: int
    world_size: int
    host: str
    """Address of the standby of rank 0."""

    port: int
    handover: Handover

    start: int = 0
    """Number of workers that were here before."""

    def connect(self) -> TCPStore:
        """Connect to the store; the standby of rank 0 starts it."""
        return TCPStore(
            self.host,
            self.port,
            is_master=self.rank == 0 and _seat is None,
            wait_for_workers=False,
            timeout=timedelta(seconds=GROUP_TIMEOUT_S),
        )

    def meet(self) -> Store:
        """Wait until every rank is here; return a store for the group that they form.

        Raises:
            SystemExit: another one does not come.
        """
        return Meeting(self).form_group()


class Meeting:
    """A worker that waits for the others.

    The generation of a worker is the number of groups that were formed before it came. Those of one
    generation form the next group. Who comes after that takes the place of one that is lost, which
    breaks the group.
    """

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._store = seat.connect()
        self._members = [_key(rank) for rank in range(seat.world_size)]
        self._beats: dict[int, int] = {}
        self._seen = dict.fromkeys(range(seat.world_size), time.monotonic())
        self._looked_at = 0.0
        self._deadline = time.monotonic() + GROUP_TIMEOUT_S

    def form_group(self) -> Store:
        """Wait for a group of which no member is lost before all of them know it.

        Raises:
            SystemExit: a standby is lost, or it takes too long.
        """
        store, rank = self._store, self._seat.rank
        generation = store.add(GENERATION, 0)
        while True:
            store.set(_key(rank), _token(generation, self._seat.start))
            if generation:
                store.set(_broken(generation), "")
            group = f"group-{generation + 1}"
            if rank == 0:
                self._wait(lambda: self._is_complete(generation))  # noqa: B023
                members = " ".join(self._tokens())
                # In this order: who comes between the two lines joins the generation after it.
                store.add(GENERATION, 1)
                store.set(group, members)
            else:
                self._wait(lambda: store.check([group]))  # noqa: B023
            generation += 1
            known = f"known-{generation}"
            store.add(known, 1)
            tokens = store.get(group).decode().split()
            everybody = self._seat.world_size
            self._wait(lambda: self._tokens() != tokens or store.add(known, 0) == everybody)  # noqa: B023
            if self._tokens() == tokens:
                return PrefixStore(group, store)

    def _tokens(self) -> list[str]:
        return [token.decode() for token in self._store.multi_get(self._members)]

    def _is_complete(self, generation: int) -> bool:
        if not self._store.check(self._members):
            return False
        return all(token.startswith(f"{generation}/") for token in self._tokens())

    def _wait(self, is_over: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            SystemExit: a standby is lost, or it takes too long.
        """
        while not is_over():
            now = time.monotonic()
            if now - self._looked_at > LOOK_S:
                self._looked_at = now
                self._look_for_standbys(now)
            if now > self._deadline:
                log("train", "has waited in vain for other workers", seconds=GROUP_TIMEOUT_S)
                raise SystemExit(1)
            time.sleep(POLL_S)

    def _look_for_standbys(self, now: float) -> None:
        for rank in self._seen:
            beats = self._store.add(_beat(rank), 0)
            if beats != self._beats.get(rank):
                self._beats[rank] = beats
                self._seen[rank] = now
            elif beats and now - self._seen[rank] > GONE_S:  # one that never came may still come
                log("train", "another worker does not come back", rank=rank)
                raise SystemExit(1)


_seat: Seat | None = None


def seat() -> Seat | None:
    """Return the seat of this process, if it is a worker that a standby has forked."""
    return _seat


def stand_by(work: Callable[[], object], handovers: list[Handover]) -> None:
    """Fork a worker, and another one when it is lost, until one has ended by itself.

    Args:
        work: what a worker does.
        handovers: one for each worker of this machine.

    Raises:
        SystemExit: the worker has failed, was stopped, or was lost before it met the others.
    """
    close_listeners()
    seat = Seat(
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        host=os.environ["MASTER_ADDR"],
        port=int(os.environ["MASTER_PORT"]),
        handover=handovers[int(os.environ["LOCAL_RANK"])],
    )
    set_process_name(f"standby {seat.rank}")
    child = Child()
    try:
        _replace_lost_workers(seat, child, work)
    except RuntimeError as error:
        log("train", "a standby has lost the store", why=str(error).partition("\n")[0])
        raise SystemExit(1) from None


def _replace_lost_workers(seat: Seat, child: Child, work: Callable[[], object]) -> None:
    watch = Watch(seat, child)
    first_start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    lost_unmet = 0
    for start in itertools.count():
        generation = watch.generation()
        child.start(
            lambda: _take(seat, work, start, first_start),  # noqa: B023
            name=f"rank {seat.rank}",
        )
        exit_code = child.wait(lambda: watch.look(start))  # noqa: B023
        is_lost = exit_code < 0 or exit_code == LOST_PEER
        if child.is_asked_to_end or not is_lost:
            raise SystemExit(exit_code if exit_code >= 0 else 128 - exit_code)
        if exit_code < 0:
            log("train", "a worker was killed", rank=seat.rank, signal=-exit_code)
        lost_unmet = lost_unmet + 1 if watch.generation() == generation else 0
        if lost_unmet == MAX_LOST_UNMET:
            raise SystemExit(1)


class Watch:
    """The view of a standby on the store."""

    def __init__(self, seat: Seat, child: Child) -> None:
        self._seat = seat
        self._child = child
        self._store = seat.connect()
        self._store.set_timeout(timedelta(seconds=STORE_TIMEOUT_S))
        self._looked_at = 0.0
        self._told: int | None = None
        self._told_at = 0.0

    def generation(self) -> int:
        """Return the number of groups so far."""
        return self._store.add(GENERATION, 0)

    def look(self, start: int) -> None:
        """Show that this standby is there; tell its worker when the group has lost another one.

        A worker that waits in a collective finds out by itself. This is for one that computes for
        long, or that waits for a group to form, of which one member is lost again.

        Args:
            start: number of the worker.
        """
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            self._look(start)
        except RuntimeError:  # the store is lost; the worker may go on without it
            self._looked_at = math.inf

    def _look(self, start: int) -> None:
        self._store.add(_beat(self._seat.rank), 1)
        key = _key(self._seat.rank)
        if self._told == start:
            if time.monotonic() - self._told_at > STILL_S:
                self._child.send(signal.SIGKILL)
            return
        if not self._store.check([key]):
            return
        generation, _, worker = self._store.get(key).decode().partition("/")
        if int(worker) == start and self._store.check([_broken(int(generation) + 1)]):
            self._told = start
            self._told_at = time.monotonic()
            self._child.send(signal.SIGUSR1)


def _take(seat: Seat, work: Callable[[], object], start: int, first_start: int) -> None:
    """Do the work of a worker."""
    global _seat
    close_listeners()
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # ends a worker that has nothing to hand over
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(first_start + start)
    _seat = dataclasses.replace(seat, start=start)
    work()


def _key(rank: int) -> str:
    return f"rank-{rank}"


def _beat(rank: int) -> str:
    return f"beat-{rank}"


def _broken(generation: int) -> str:
    return f"broken-{generation}"


def _token(generation: int, start: int) -> str:
    """Name a worker that waits for the group after a generation."""
    return f"{generation}/{start}"
