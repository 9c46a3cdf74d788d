"""Two ranks that start once: `torchrun ranks.py FOLDER JOB.json...`.

First the collectives, whose results go to `FOLDER/collectives-<rank>.json`. Then one training after
the other; each rank leaves `rank-<r>.json` beside its job: steps, samples, seconds, best score and
a digest of its weights, or its exit code.
"""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from citeflow.errors import CiteflowError, ConfigError
from citeflow.training import worker
from citeflow.training.distributed import Group, init_group
from citeflow.training.trainer import Trainer


def main() -> None:
    folder, *jobs = map(Path, sys.argv[1:])
    with init_group() as group:
        found = collectives(group)
        (folder / f"collectives-{group.rank}.json").write_text(json.dumps(found))
        worker.init_group = lambda timeout_s, store: contextlib.nullcontext(group)
        for job in jobs:
            (job.parent / f"rank-{group.rank}.json").write_text(json.dumps(train(job)))


def collectives(group: Group) -> dict:
    """What every collective gives this rank."""
    group.barrier()
    one, other = group.empty(5, 3), group.empty(5, 3)
    if group.is_main:
        one[:], other[:] = 1, 2
        one[4, 2] = 7
    group.barrier()
    shared = [one.sum().item(), other.sum().item()]
    apart = Group(group.rank, group.world_size, group.device, local_world_size=1)
    rows = apart.rows(5)
    gathered = torch.full((5, 1), -1.0)
    gathered[rows.start : rows.stop] = float(group.rank)
    apart.all_gather_rows(gathered)
    return {
        "all_reduce": group.all_reduce(1.5, group.rank),
        "all_reduce_in_step": group.all_reduce_in_step(2.5),
        "broadcast_in_step": group.broadcast_in_step(0.1 + group.rank),
        "broadcast_object": group.broadcast_object(lambda: {"rank": group.rank}),
        "broadcast_error": error_of(lambda: group.broadcast_object(fail)),
        "broadcast_os_error": error_of(lambda: group.broadcast_object(fail_on_disk)),
        "all_gather_object": group.all_gather_object([group.rank]),
        "shared_rows": shared,
        "gathered_rows": gathered.flatten().tolist(),
    }


def fail() -> None:
    raise ConfigError("wrong", os.environ["RANK"], hint="mend it")


def fail_on_disk() -> None:
    raise OSError(28, "No space left on device", "x")


def error_of(call) -> str:
    try:
        call()
    except CiteflowError as error:
        return str(error)
    return ""


def train(job: Path) -> dict:
    """Train one job; what this rank has in the end."""
    found = {}

    class Recorded(Trainer):
        def load_best(self) -> None:
            weights = [value.numpy().tobytes() for value in self.model.state_dict().values()]
            found["weights"] = hashlib.sha256(b"".join(weights)).hexdigest()
            for name in ("step", "samples", "seconds", "best_score"):
                found[name] = getattr(self.progress, name)
            super().load_best()

    worker.Trainer = Recorded
    try:
        worker.main([str(job)])
    except SystemExit as ended:
        found["code"] = ended.code
    return found


if __name__ == "__main__":
    main()
