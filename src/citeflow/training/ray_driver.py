"""The driver of a training on Ray: a torchrun on each of so many places, followed to their end.

`python -m citeflow.training.ray_driver --workers 2 ... JOB.json` places an actor for each torchrun,
lets all of them meet at the first, and prints the lines of each as they come. The workers are those
of every other launcher: torchrun starts them again when one is lost, from the checkpoint. Where an
actor or its node is lost, all begin again. When one torchrun fails, the others are ended.

This is the only module that needs Ray.
"""

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from citeflow import files
from citeflow.errors import (
    CiteflowError,
    ConfigError,
    StoppedError,
    UnavailableError,
    error_to_dict,
)
from citeflow.training.launch import (
    GRACE_S,
    LOOPBACK,
    TORCHRUN,
    is_final,
    read_error,
    read_job,
)
from citeflow.training.ray_launch import driver_parser
from citeflow.utils.logging import log
from citeflow.utils.signals import stop_with_parent
from citeflow.utils.system import (
    MALLOC_TUNABLES_VARIABLE,
    SAFE_PATH,
    TORCHRUN_VARIABLES,
    malloc_tunables,
)

OBJECT_STORE_BYTES = 75 * 2**20
"""The least that Ray takes. Lines of text are all that goes through it."""

JOIN_TIMEOUT_S = 900
"""Longest wait for all places, and of a torchrun for the others: nodes and images take minutes."""

START_TRIES = 3
"""Ray gives itself 30 s to start, which a machine with other work may not suffice for."""

POLL_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an actor is."""

    address: str
    port: int
    """A port that was free a moment ago."""

    sees_job: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """The end of all torchruns."""

    exit_code: int
    """The first that was not 0."""

    is_lost: bool = False
    """True if an actor was lost, so that the exit codes of the others say nothing."""


class Torchrun:
    """An actor with one torchrun, which ends with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def place(self, job_file: Path) -> Place:
        """Return where this actor is, and whether the job's file can be read from there."""
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        address = ray.util.get_node_ip_address()
        return Place(address=address, port=port, sees_job=job_file.is_file())

    def run(self, arguments: list[str], environment: dict[str, str]) -> Iterator[str | int]:
        """Run torchrun; yield its lines, and its exit code in the end.

        Args:
            arguments: those of python.
            environment: variables besides those of this process.
        """
        # What Ray tells its own processes, such as the token of its cluster, concerns no training.
        own = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        parent = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=lambda: stop_with_parent(parent.__eq__),
        )
        with self._process as torchrun:
            for line in torchrun.stdout or ():
                yield line.rstrip("\n")
            yield torchrun.wait()

    def stop(self) -> None:
        """Ask torchrun to end its workers, which save what they have."""
        if self._process:
            self._process.terminate()


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the arguments say, and end with the exit code of torchrun."""
    arguments = driver_parser().parse_args(argv)
    environment = torchrun_environment()
    try:
        with connected(arguments) as gpus, _stop_requests() as stop:
            exit_code = train(arguments, environment, gpus, stop)
    except CiteflowError as error:
        run = read_job(arguments.job).paths
        files.write_json(run.error_file, error_to_dict(error))
        log("train", "ends", error=error.what, value=error.value)
        exit_code = error.exit_code
    sys.exit(exit_code)


def torchrun_environment() -> dict[str, str]:
    """Take from the environment what is meant for torchrun alone, and not for Ray's processes."""
    tunables = os.environ.pop(MALLOC_TUNABLES_VARIABLE, malloc_tunables())
    for name in SAFE_PATH:
        os.environ.pop(name, None)
    return {MALLOC_TUNABLES_VARIABLE: tunables, **SAFE_PATH, **TORCHRUN_VARIABLES}


@contextlib.contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[int]:
    """Connect to Ray during a block; yield the GPUs of a place.

    Raises:
        UnavailableError: there is none at the address.
    """
    start(arguments)
    try:
        # As without Ray: each worker has a GPU of its own, or none has one.
        has_gpus = ray.cluster_resources().get("GPU", 0) >= arguments.workers
        yield int(has_gpus) if arguments.gpus is None else arguments.gpus
    finally:
        ray.shutdown()


def start(arguments: argparse.Namespace) -> None:
    """Start a Ray here, in several tries, or connect to the one at the address.

    Raises:
        UnavailableError: it does not start, or there is none.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    if not arguments.here:
        try:
            ray.init(address=arguments.address, **options)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            what = f"no Ray at {arguments.address}"
            hint = "only a node of the cluster can join it: HOST:6379 or auto"
            raise UnavailableError(what, _first_line(error), hint=hint) from None
        return
    options |= {
        "num_cpus": arguments.workers,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_temp_dir": str(arguments.here),
    }
    for number in range(1, START_TRIES + 1):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:  # Ray raises this very class when its processes take too long
            log("train", "Ray does not start", attempt=number, why=_first_line(error))
            ray.shutdown()
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    hint = "on a machine that is busy it may take longer than Ray waits: run it again"
    raise UnavailableError("Ray does not start, in tries", START_TRIES, hint=hint)


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect the signals that ask this process to stop, during a block."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda got, _: received.append(got)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def train(
    arguments: argparse.Namespace, environment: dict[str, str], gpus: int, stop: list[int]
) -> int:
    """Run torchrun on all places until each has ended well; return the exit code.

    Args:
        arguments: as `driver_parser` reads them.
        environment: variables for torchrun.
        gpus: those of a place.
        stop: gets an entry when all shall end.

    Raises:
        UnavailableError: Ray has not enough places.
        ConfigError: a place does not see the folder of the run.
    """
    error_file = read_job(arguments.job).paths.error_file
    actor = ray.remote(Torchrun).options(
        num_cpus=1, num_gpus=gpus, max_concurrency=2, scheduling_strategy="SPREAD"
    )
    for attempt in range(arguments.restarts + 1):
        if attempt:
            log("train", "begins again: a place was lost", attempt=attempt + 1)
        actors = [actor.remote() for _ in range(arguments.workers)]
        try:
            end = run_once(actors, arguments, environment, stop)
        finally:
            for each in actors:
                ray.kill(each)
        error = read_error(error_file)
        if stop or not end.is_lost or (error and is_final(error)):
            return StoppedError.exit_code if stop else end.exit_code
    return 1


def run_once(
    actors: list[Any], arguments: argparse.Namespace, environment: dict[str, str], stop: list[int]
) -> End:
    """Run torchrun on all places once."""
    try:
        places = find_places(actors, arguments.job, stop)
    except RayError as error:
        log("train", "has lost a place", why=_first_line(error))
        return End(exit_code=1, is_lost=True)
    if stop:
        return End(exit_code=StoppedError.exit_code)
    hosts = [LOOPBACK if arguments.here else place.address for place in places]
    endpoint = f"{hosts[0]}:{places[0].port}"
    run_id = secrets.token_hex(8)
    streams = {}
    for rank, (each, host) in enumerate(zip(actors, hosts, strict=True)):
        command = torchrun_command(arguments, rank, host, endpoint, run_id)
        stream = each.run.options(num_returns="streaming").remote(command, environment)
        streams[stream] = rank
    return follow(actors, streams, stop)


def find_places(actors: list[Any], job_file: Path, stop: list[int]) -> list[Place]:
    """Wait until Ray has placed all actors; an empty list if they shall end before.

    Raises:
        UnavailableError: it has not, for JOIN_TIMEOUT_S.
        ConfigError: one of them does not see the job's file.
        RayError: one of them is lost.
    """
    waiting = [each.place.remote(job_file) for each in actors]
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    reported = 0.0
    while not stop:
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        if len(ready) == len(waiting):
            places: list[Place] = ray.get(waiting)
            if not all(place.sees_job for place in places):
                hint = "all nodes of Ray need the same --data-root, such as a shared disk"
                raise ConfigError("a node of Ray does not see", job_file, hint=hint)
            return places
        if time.monotonic() > deadline:
            value = f"{len(ready)} of {len(waiting)}"
            hint = "`ray status` shows what the cluster has, and what it lacks"
            raise UnavailableError("Ray has not enough places for workers", value, hint=hint)
        if time.monotonic() > reported + 60:
            reported = time.monotonic()
            log("train", "waits for places", found=len(ready), wanted=len(waiting))
    return []


def torchrun_command(
    arguments: argparse.Namespace, rank: int, host: str, endpoint: str, run_id: str
) -> list[str]:
    """Return the arguments of python for the torchrun of a place.

    Args:
        arguments: as `driver_parser` reads them.
        rank: index of the place.
        host: its address.
        endpoint: address and port of the first place, whose torchrun holds the store.
        run_id: name that all of them have.
    """
    timeouts = f"join_timeout={JOIN_TIMEOUT_S},read_timeout={JOIN_TIMEOUT_S}"
    return [
        "-m",
        TORCHRUN,
        f"--nnodes={arguments.workers}",
        f"--nproc-per-node={arguments.processes}",
        f"--max-restarts={arguments.restarts}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={endpoint}",
        f"--rdzv-id={run_id}",
        # Places on one machine have the same address, by which torchrun would tell who is the host.
        f"--rdzv-conf=is_host={rank == 0},{timeouts}",
        f"--local-addr={host}",
        "-m",
        arguments.worker,
        str(arguments.job),
    ]


def follow(actors: list[Any], streams: dict[Any, int], stop: list[int]) -> End:
    """Print what all torchruns write until they have ended; end all when one fails or is lost.

    Args:
        actors: those of the torchruns.
        streams: what their `run` yields, with their index.
        stop: gets an entry when all shall end.
    """
    exit_codes: list[int] = []
    is_lost = False
    deadline = None
    while streams and (deadline is None or time.monotonic() < deadline):
        ready, _ = ray.wait(list(streams), timeout=POLL_S)
        for stream in ready:
            try:
                item = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
            except RayError as error:
                log("train", "has lost a place", worker=streams.pop(stream), why=_first_line(error))
                is_lost = True
            else:
                if isinstance(item, int):
                    exit_codes.append(item)
                else:
                    print(f"worker-{streams[stream]} | {item}", file=sys.stderr, flush=True)
        if deadline is None and (stop or is_lost or any(exit_codes)):
            deadline = time.monotonic() + GRACE_S
            for each in actors:
                each.stop.remote()
    first = next(filter(None, exit_codes), 0)
    # A torchrun that ends on a signal which is none of ours was asked to by its node, which goes.
    # One that does not answer is lost too: Ray takes a minute to notice that a node is gone.
    is_asked = first == StoppedError.exit_code and not stop
    return End(exit_code=first, is_lost=is_lost or is_asked or bool(streams))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


if __name__ == "__main__":
    main()
