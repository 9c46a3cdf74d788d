"""The queue: which run starts next, and the thread that starts it and notes how it ends.

It goes round the users, the one who has waited longest for a turn first. A run starts where its
user's quota and the machine have room. Who is at the quota is passed over; nobody goes before a run
that waits for the machine alone, so that large ones get their turn.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from citeflow.errors import CiteflowError, UnavailableError
from citeflow.platform import store
from citeflow.platform.backends.base import Backend, Resources, RunState, Submitted
from citeflow.platform.phases import ENDED, QUEUED, STARTED
from citeflow.platform.store import Store, TableRow
from citeflow.utils.logging import log

TICK_S = 1.0
"""Seconds between two looks at the runs that are at work."""

CANCELLED = "cancelled before it began"
STOPPED = "you cancelled it. Resume goes on from its checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A run in the queue."""

    id: str
    user: str
    cores: int
    memory: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Everything that the choice of the next run depends on."""

    waiting: Sequence[Waiting]
    """In the order in which each user has submitted them."""

    running: Sequence[Waiting]
    last_turn: Mapping[str, int]
    """By user; 0 or none where there was no turn yet."""

    quotas: Mapping[str, Resources]
    """Of users who have an environment."""

    capacity: Resources | None
    """Of the machine; None where the backend has a queue of its own."""


def choose(standing: Standing) -> Waiting | None:
    """Return the run that starts next; None where all have to wait."""
    free = _free(standing.capacity, standing.running)
    for run in _heads(standing):
        own = [each for each in standing.running if each.user == run.user]
        quota = _free(standing.quotas.get(run.user, Resources(cores=0, memory=0, disk=0)), own)
        if not _fits(run, quota):
            continue
        return run if _fits(run, free) else None
    return None


def order(standing: Standing) -> list[str]:
    """Return the ids of all runs that wait, in the order of their turns if all had room."""
    turns = dict(standing.last_turn)
    rest = list(standing.waiting)
    ordered = []
    turn = max(turns.values(), default=0)
    while rest:
        heads = _heads(dataclasses.replace(standing, waiting=rest, last_turn=turns))
        turn += 1
        turns[heads[0].user] = turn
        ordered.append(heads[0].id)
        rest.remove(heads[0])
    return ordered


def _heads(standing: Standing) -> list[Waiting]:
    """Return the first run of each user, that of the user who has waited longest first."""
    heads: dict[str, Waiting] = {}
    for run in standing.waiting:
        heads.setdefault(run.user, run)
    return sorted(heads.values(), key=lambda run: standing.last_turn.get(run.user, 0))


def _free(whole: Resources | None, used: Iterable[Waiting]) -> Resources | None:
    if whole is None:
        return None
    taken = list(used)
    return dataclasses.replace(
        whole,
        cores=whole.cores - sum(run.cores for run in taken),
        memory=whole.memory - sum(run.memory for run in taken),
    )


def _fits(run: Waiting, free: Resources | None) -> bool:
    return free is None or (run.cores <= free.cores and run.memory <= free.memory)


def submitted(row: TableRow) -> Submitted:
    """Return a row of `runs` as a backend gets it."""
    return Submitted(
        id=row.id,
        user=row.user,
        name=row.name,
        task=row.task,
        dataset=row.source,
        settings=row.yaml,
        workers=row.workers,
        cores=row.workers,
        memory=row.memory,
        attempt=row.attempt,
    )


def detail_of(row: TableRow, state: RunState) -> str:
    """Return why a run stands as it does: a place knows the signal, and not whose wish it was."""
    is_wish = row.is_cancelled and state.phase == "stopped" and state.detail != CANCELLED
    return STOPPED if is_wish else state.detail


class Queue:
    """The queue in the database, and the thread that serves it."""

    def __init__(
        self,
        database: Store,
        backend: Backend,
        on_end: Callable[[TableRow, RunState], None] = lambda row, state: None,
    ) -> None:
        """Take database and backend; nothing is started before `start`.

        Args:
            database: where the runs are.
            backend: where they take place.
            on_end: called when a run has ended, again if the server is killed meanwhile.
        """
        self._store = database
        self._backend = backend
        self._on_end = on_end
        self._woken = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, name="queue", daemon=True)

    def start(self) -> None:
        """Serve the queue in a thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now."""
        self._woken.set()

    def close(self) -> None:
        """End the thread; runs go on."""
        self._is_closed = True
        self._woken.set()
        self._thread.join()

    def standing(self, connection: Connection) -> Standing:
        """Read everything that the choice depends on."""
        columns = (store.runs.c.id, store.runs.c.user, store.runs.c.workers, store.runs.c.memory)
        query = select(*columns).order_by(store.runs.c.place)

        def runs(phase: str) -> list[Waiting]:
            rows = connection.execute(query.where(store.runs.c.phase == phase))
            return [
                Waiting(id=row.id, user=row.user, cores=row.workers, memory=row.memory)
                for row in rows
            ]

        users = connection.execute(select(store.users)).all()
        sizes = self._backend.sizes()
        return Standing(
            waiting=runs(QUEUED),
            running=runs(STARTED),
            last_turn={user.name: user.last_turn for user in users},
            quotas={
                user.name: sizes[user.size]
                for user in users
                if user.size is not None and not user.suspended
            },
            capacity=self._backend.capacity(),
        )

    def tick(self) -> None:
        """Note which runs have ended, and start those whose turn it is."""
        query = select(store.runs).where(store.runs.c.phase == STARTED)
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(store.runs.c.turn)).all()
        for row in rows:
            with _logged(row.name):
                self._look_after(row)
        while (next_row := self._take()) is not None:
            with _logged(next_row.name):
                self._begin(next_row)

    def _serve(self) -> None:
        while not self._is_closed:
            self._woken.clear()
            try:
                self.tick()
            except Exception as error:  # such as a full disk: the next look may do
                log("platform", "could not look at the queue", because=repr(error))
            self._woken.wait(TICK_S)

    def _look_after(self, row: TableRow) -> None:
        run = submitted(row)
        state = self._backend.state(run)
        if state.phase == "absent":
            # The server was killed between its note and the start, or the start has failed.
            if row.is_cancelled:
                self._end(row, RunState(phase="stopped", detail=CANCELLED))
            else:
                self._begin(row)
        elif state.phase in ("succeeded", "failed", "stopped"):
            self._end(row, state)
        elif row.is_cancelled:
            self._backend.cancel(run)

    def _take(self) -> TableRow | None:
        """Note that the next run starts, and return it.

        It is noted first: what is noted and did not start, because the server was killed, starts
        when the server does, and the backend starts no attempt twice.
        """
        with self._store.write() as connection:
            chosen = choose(self.standing(connection))
            if chosen is None:
                return None
            turn = 1 + (connection.execute(select(func.max(store.users.c.last_turn))).scalar() or 0)
            of_user = store.users.c.name == chosen.user
            connection.execute(update(store.users).where(of_user).values(last_turn=turn))
            of_run = store.runs.c.id == chosen.id
            changes = {"phase": STARTED, "turn": turn}
            connection.execute(update(store.runs).where(of_run).values(**changes))
            return connection.execute(select(store.runs).where(of_run)).one()

    def _begin(self, row: TableRow) -> None:
        try:
            self._backend.start(submitted(row))
        except UnavailableError:
            raise  # tried again at the next look
        except CiteflowError as error:
            detail = f"{error.what}: {error.value}" if error.value else error.what
            self._end(row, RunState(phase="failed", detail=detail))

    def _end(self, row: TableRow, state: RunState) -> None:
        self._on_end(row, state)
        values = {
            "phase": ENDED,
            "state": state.phase,
            "detail": detail_of(row, state)[:1_000],
            "started": state.started.timestamp() if state.started else row.started,
            "ended": state.ended.timestamp() if state.ended else store.now(),
            "is_cancelled": False,
        }
        of_attempt = (store.runs.c.id == row.id) & (store.runs.c.attempt == row.attempt)
        with self._store.write() as connection:
            connection.execute(update(store.runs).where(of_attempt).values(**values))


@contextlib.contextmanager
def _logged(name: str) -> Iterator[None]:
    """Log the failure of one run, so that the others are looked after all the same."""
    try:
        yield
    except Exception as error:
        log("platform", "could not look after a run", run=name, because=repr(error))
