"""The ranking of models over several seeds, and whether their differences are more than noise."""

import csv
import dataclasses
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import mean, stdev

from scipy import stats

from citeflow.experiments.trials import Outcome
from citeflow.report import ComparedReport
from citeflow.reporting import formatting

LEVEL = 0.05
"""A difference is more than noise where seeds alone make one as large less often than this."""

CONFIDENCE = 0.95
SEED = "-seed-"
"""Separates a model from its seed in the name of a trial."""


class Verdict(StrEnum):
    """A model against the winner."""

    WINNER = "winner"
    MORE = "more than noise"
    WITHIN = "within noise"
    UNKNOWN = "one seed: unknown"
    BETTER = "better on the test"
    """Ahead of the winner by more than noise, which validation did not foresee."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A model over all of its seeds; lists have one value for each, in the order of `seeds`."""

    name: str
    seeds: list[int]
    valid: list[float]
    """Validation scores; the winner has the highest mean."""

    test: list[float]
    second: list[float]
    """One more figure of the test, such as the accuracy."""
    seconds: list[float]
    """Time of each training."""

    curves: list[list[dict[str, float]]]
    """Validations during each training: epoch, seconds and the score."""

    metric: str = "MRR"
    """Label of the score."""

    names: tuple[str, str, str] = ("valid_mrr", "test_mrr", "accuracy")
    """Names of the three figures."""

    second_label: str = "Accuracy"

    protocol: str = "ogb"
    """Protocol of the test score."""

    mrr_by_protocol: Mapping[str, list[float]] = field(default_factory=dict)
    """Test MRR in each protocol that was measured with all seeds."""

    behind: float = 0.0
    """Mean test score of the winner minus that of this model."""

    interval: tuple[float, float] | None = None
    """The 95 % confidence interval of that difference, by Welch's t."""

    p: float | None = None
    """p-value of Welch's test, with Holm's correction for all models but the winner."""

    verdict: Verdict = Verdict.WINNER


def rank_models(outcomes: Sequence[Outcome[ComparedReport]]) -> list[Standing]:
    """Rank models by mean validation score, and compare each with the first one on the test."""
    by_model: dict[str, list[Outcome[ComparedReport]]] = {}
    for outcome in outcomes:
        by_model.setdefault(outcome.name.rpartition(SEED)[0], []).append(outcome)
    standings = [_standing(name, trials) for name, trials in by_model.items()]
    winner, *others = sorted(standings, key=lambda each: -mean(each.valid))
    compared = [_compare(each, winner) for each in others]
    corrected = holm([each.p for each in compared])
    return [winner, *map(_judge, compared, corrected)]


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[tuple[float, float], float]:
    """Test the difference of two means: its 95 % confidence interval and its p-value.

    Welch, "The generalization of Student's problem when several different population variances are
    involved", 1947.
    """
    difference = mean(first) - mean(second)
    if stdev(first) == stdev(second) == 0:  # where t is undefined
        return (difference, difference), float(difference == 0)
    with warnings.catch_warnings():
        # scipy warns where one of them has equal values, whose variance of 0 is what they have.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = stats.ttest_ind(first, second, equal_var=False)
        low, high = test.confidence_interval(CONFIDENCE)
    return (float(low), float(high)), float(test.pvalue)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number: chance finds a difference with probability LEVEL at most.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        corrected[index] = highest
    return corrected


def headline(ranked: Sequence[Standing]) -> str:
    """Say in one sentence or two which model wins."""
    winner, *others = ranked
    metric, score = winner.metric, f"{mean(winner.test):.4f}"
    test = formatting.in_protocol(f"test {metric}", winner.protocol)
    sentences = [f"{winner.name} has the highest validation {metric}; its {test} is {score}."]
    if others[0].verdict is Verdict.UNKNOWN:
        return f"{sentences[0]} One seed cannot tell whether that is more than noise."
    templates = {
        Verdict.BETTER: "On the test it is behind {}, by more than noise.",
        Verdict.WITHIN: "Its difference to {} is within the noise between seeds.",
        Verdict.MORE: "It is ahead of {} by more than noise.",
    }
    for verdict, template in templates.items():
        names = [each.name for each in others if each.verdict is verdict]
        if names:
            sentences.append(template.format(", ".join(names)))
    return " ".join(sentences)


def to_csv(ranked: Sequence[Standing]) -> str:
    """Format the trainings as CSV, a line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    protocols = [
        name
        for name in formatting.PROTOCOLS
        if all(name in each.mrr_by_protocol for each in ranked)
    ]
    further = [f"{name}_mrr" for name in protocols]
    writer.writerow(("model", "seed", *ranked[0].names, "seconds", *further))
    for each in ranked:
        mrr = [each.mrr_by_protocol[name] for name in protocols]
        columns = (each.seeds, each.valid, each.test, each.second, each.seconds, *mrr)
        writer.writerows((each.name, *values) for values in zip(*columns, strict=True))
    return text.getvalue()


def _standing(name: str, outcomes: Sequence[Outcome[ComparedReport]]) -> Standing:
    figures = [outcome.report.compared() for outcome in outcomes]
    first = figures[0]
    return Standing(
        name=name,
        seeds=[each.seed for each in figures],
        valid=[each.valid for each in figures],
        test=[each.test for each in figures],
        second=[each.second for each in figures],
        metric=first.metric,
        names=first.names,
        second_label=first.second_label,
        protocol=first.protocol,
        mrr_by_protocol={
            name: [each.mrr_by_protocol[name] for each in figures]
            for name in formatting.PROTOCOLS
            if all(name in each.mrr_by_protocol for each in figures)
        },
        seconds=[outcome.report.train.seconds for outcome in outcomes],
        curves=[outcome.curves.evaluations for outcome in outcomes],
    )


def _compare(model: Standing, winner: Standing) -> Standing:
    behind = mean(winner.test) - mean(model.test)
    if min(len(model.test), len(winner.test)) < 2:
        return dataclasses.replace(model, behind=behind)
    interval, p = welch(winner.test, model.test)
    return dataclasses.replace(model, behind=behind, interval=interval, p=p)


def _judge(model: Standing, p: float | None) -> Standing:
    if p is None:
        verdict = Verdict.UNKNOWN
    elif p >= LEVEL:
        verdict = Verdict.WITHIN
    else:
        verdict = Verdict.MORE if model.behind > 0 else Verdict.BETTER
    return dataclasses.replace(model, p=p, verdict=verdict)
