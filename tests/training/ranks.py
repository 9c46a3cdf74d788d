"""Trains one job after another with ranks that are started once: `torchrun ranks.py JOB.json...`.

Every rank leaves `rank-<r>.json` beside a job: steps, citations, seconds and a digest of its weights, or its error.
"""

import hashlib
import json
import sys
from pathlib import Path

from citeflow.errors import CiteflowError, error_to_dict
from citeflow.training import worker
from citeflow.training.distributed import joined
from citeflow.training.trainer import fit


def main() -> None:
    with joined() as group:
        for job_file in map(Path, sys.argv[1:]):
            told = attempt(group, job_file)
            (job_file.parent / f"rank-{group.rank}.json").write_text(json.dumps(told))


def attempt(group, job_file):
    told = {}

    def fit_and_tell(training):
        fit(training)
        weights = b"".join(
            value.numpy().tobytes() for value in training.model.state_dict().values()
        )
        told.update(weights=hashlib.sha256(weights).hexdigest())
        told.update(
            {
                name: getattr(training.progress, name)
                for name in ("step", "positives", "seconds", "best_mrr")
            }
        )

    worker.fit = fit_and_tell
    try:
        worker.work(group, job_file.parent, json.loads(job_file.read_text()))
    except CiteflowError as error:
        told.update(error_to_dict(error))
    return told


if __name__ == "__main__":
    main()
