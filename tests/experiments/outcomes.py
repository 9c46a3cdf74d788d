"""Results of trials without a training."""

from citeflow import config
from citeflow.experiments.trials import Outcome
from citeflow.report import Curves, ProtocolScores, Report, Scores, TrainSummary


def scores(mrr):
    return Scores.model_validate(
        {
            "mrr": mrr,
            "hits@1": mrr,
            "hits@3": mrr,
            "hits@10": mrr,
            "accuracy": 0.9,
            "auc": 0.9,
            "num_positives": 10,
            "num_negatives": 100,
        }
    )


def protocol(mrr):
    return ProtocolScores.model_validate(
        {
            "mrr": mrr,
            "recall@20": mrr,
            "recall@100": mrr,
            "median_rank": 3.0,
            "num_sources": 10,
            "of_sources": 10,
            "num_candidates": 100,
            "seconds": 1.0,
            "baselines": {},
        }
    )


def report(
    *,
    workers=1,
    epochs=2.0,
    seconds=10.0,
    mrr=0.5,
    valid_mrr=None,
    seed=0,
    chosen="ogb",
    others_share=None,
    **others,
):
    """The report of one training, compared by the protocol `chosen`; `others` have a MRR each."""
    train = TrainSummary(
        workers=workers,
        epochs=epochs,
        steps=10,
        positives=1000,
        seconds=seconds,
        positives_per_s=1000.0 / seconds,
        parameters=10,
        cpu_cores=1.5,
        others_share=others_share,
        peak_memory_bytes=2**30,
    )
    return Report(
        dataset="hepth",
        num_papers=10,
        num_citations=20,
        facts={},
        config=config.changed(
            config.load(),
            {"train": {"epochs": epochs, "seed": seed}, "evaluation": {"protocol": chosen}},
        ),
        versions={},
        valid=scores(mrr if valid_mrr is None else valid_mrr),
        test=scores(mrr),
        protocols={name: protocol(value) for name, value in others.items()},
        baselines={},
        train=train,
    )


def outcome(name="m-1-w-0-e-2", *, validations=(), **figures):
    """The result of one training."""
    curves = Curves(evaluations=list(validations))
    return Outcome(name=name, report=report(**figures), curves=curves)


def curve(*mrr):
    """Validations during a training, one a second and an epoch."""
    return [
        {"epoch": at + 1.0, "seconds": at + 1.0, "valid_mrr": value} for at, value in enumerate(mrr)
    ]


def model(name, test, valid=None, validations=()):
    """The results of a model, one for each seed."""
    return [
        outcome(
            f"{name}-seed-{seed}",
            mrr=mrr,
            valid_mrr=(valid or test)[seed],
            seed=seed,
            validations=validations,
        )
        for seed, mrr in enumerate(test)
    ]
