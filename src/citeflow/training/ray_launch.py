"""Starts the workers of a training through Ray: one of this machine, or a cluster that it is in."""

import argparse
import importlib.util
import os
import secrets
import sys
import tempfile
from pathlib import Path

from citeflow import own_model
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError, MissingPackageError
from citeflow.paths import RunPaths
from citeflow.training import launch
from citeflow.training.sandbox import is_trusted
from citeflow.utils.signals import no_orphans

DRIVER = "citeflow.training.ray_driver"

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Ray's own environment variable with the address of a cluster."""

NO_ADDRESS = ("", "local")
"""Addresses that join no cluster. Ray would start one for the second, without a token."""

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # or training would come after all else that the machine does
    "RAY_memory_monitor_refresh_ms": "0",  # the kernel ends what needs too much memory
}
"""Environment variables of every process of a Ray that is started for a training."""

INSTALL = "pip install '.[ray]' in a checkout of citeflow"


def train_on_ray(data: Path, run: RunPaths, *, config: TaskConfig, workers: int) -> Path:
    """Train on the Ray of $RAY_ADDRESS, or on one that is started here for this training alone.

    Returns:
        The TrainedModel.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigError: the address is one for Ray's clients, or the model is made by code.
        CiteflowError: as `train_locally`, or Ray has no places for the workers.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingPackageError("package is not installed", "ray", hint=INSTALL)
    if own_model.has_code(config) and not is_trusted():
        hint = "--launcher local, or --trust-code if you trust the file"
        raise ConfigError("code of one's own has no sandbox on Ray", hint=hint)
    address = os.environ.get(ADDRESS_VARIABLE, "")
    alone = address in NO_ADDRESS
    if "://" in address:
        hint = f"{ADDRESS_VARIABLE}=HOST:6379, or auto, on a node of the cluster"
        raise ConfigError("not an address of a Ray cluster from within", address, hint=hint)
    # A socket's path has at most 107 characters, of which Ray needs 60.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, no_orphans():
        return launch.train_locally(
            data,
            run,
            config=config,
            workers=workers,
            command=driver_command(
                workers, f"--here={folder}" if alone else f"--address={address}"
            ),
            variables=own_cluster() if alone else {},
        )


def own_cluster() -> dict[str, str]:
    """Return the environment variables of a Ray that is started here.

    It listens on all interfaces, and runs the code of whom it lets in: those who have the token.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        **RAY_SETTINGS,
    }


def driver_command(workers: int, where: str) -> list[str]:
    """Return the command of the driver, up to the path of job.json."""
    return [
        sys.executable,
        "-P",
        "-m",
        DRIVER,
        f"--workers={workers}",
        f"--restarts={launch.MAX_RESTARTS}",
        f"--worker={launch.WORKER}",
        where,
    ]


def driver_parser() -> argparse.ArgumentParser:
    """Return the parser of the driver's arguments."""
    parser = argparse.ArgumentParser(prog=DRIVER, allow_abbrev=False)
    parser.add_argument("job", type=Path, help="job.json in the folder of the run")
    parser.add_argument("--workers", type=int, required=True, help="places, with a torchrun each")
    parser.add_argument("--processes", type=int, default=1, help="workers of a torchrun")
    parser.add_argument("--restarts", type=int, required=True, help="limit of either restart")
    parser.add_argument(
        "--gpus", type=int, help="GPUs of a place; by default 1, if all can have it"
    )
    parser.add_argument("--worker", default=launch.WORKER, help="module that each worker runs")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--here", type=Path, help="start a Ray of this machine, with this folder")
    where.add_argument("--address", default="auto", help="a Ray that runs, as ray.init takes it")
    return parser
