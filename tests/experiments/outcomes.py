"""Outcomes of trials as a test wants them, without a training."""

from citeflow import config
from citeflow.experiments.trials import Outcome


def outcome(
    name="m-1-w-0-e-2",
    *,
    workers=1,
    epochs=2.0,
    seconds=10.0,
    mrr=0.5,
    valid_mrr=None,
    seed=0,
    evaluations=(),
):
    """One run of an experiment."""
    settings = config.changed(config.load(), {"train": {"epochs": epochs, "seed": seed}}).to_dict()
    return Outcome(
        name=name,
        report={
            "dataset": "hepth",
            "config": settings,
            "train": {
                "workers": workers,
                "seconds": seconds,
                "positives_per_s": 1000.0 / seconds,
                "cpu_cores": 1.5,
                "peak_memory_bytes": 2**30,
            },
            "valid": {"mrr": mrr if valid_mrr is None else valid_mrr},
            "test": {"mrr": mrr, "accuracy": 0.9},
        },
        curves={"evaluations": list(evaluations)},
    )


def curve(*mrr):
    """Evaluations during a training, one a second and an epoch."""
    return [
        {"epoch": at + 1.0, "seconds": at + 1.0, "valid_mrr": value} for at, value in enumerate(mrr)
    ]
