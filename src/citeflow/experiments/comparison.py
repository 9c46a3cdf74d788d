"""Which of several models is best, and whether by more than the noise between seeds."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy import stats

from citeflow.experiments.trials import Outcome

LEVEL = 0.05
"""A difference is more than noise where seeds alone make one as large less often than this."""

CONFIDENCE = 0.95
SEED = "-seed-"
WINNER, MORE, WITHIN, UNKNOWN = "winner", "more than noise", "within noise", "one seed: unknown"
BETTER = "better on the test"
"""Ahead of the winner by more than noise, which validation did not foresee."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A model over all of its seeds; a list has one figure for each, in the order of the seeds."""

    name: str
    seeds: list[int]
    valid_mrr: list[float]
    """What the winner is chosen by: the highest mean."""

    test_mrr: list[float]
    accuracy: list[float]
    seconds: list[float]
    """Time of each training."""

    curves: list[list[dict[str, Any]]]
    """The evaluations of each training."""

    behind: float = 0.0
    """Mean test MRR of the winner less that of this model."""

    interval: tuple[float, float] | None = None
    """Where that difference lies with 95 % confidence, by Welch's t."""

    p: float | None = None
    """How often seeds alone make such a difference: Welch's test, Holm's correction for all models but the winner."""

    verdict: str = WINNER


def standings(outcomes: Sequence[Outcome]) -> list[Standing]:
    """The models, the one with the highest mean validation MRR first, each compared with that one on the test."""
    names = list(dict.fromkeys(outcome.name.rpartition(SEED)[0] for outcome in outcomes))
    found = [_standing(name, outcomes) for name in names]
    winner, *others = sorted(found, key=lambda each: -mean(each.valid_mrr))
    judged = [_against(each, winner) for each in others]
    corrected = holm([each.p for each in judged])
    return [winner, *(_judged(each, p) for each, p in zip(judged, corrected, strict=True))]


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[tuple[float, float], float]:
    """Where the difference of two means lies with 95 % confidence, and how often chance makes one as large.

    Welch, "The generalization of Student's problem when several different population variances are involved", 1947.
    """
    difference = mean(first) - mean(second)
    spread = [stdev(values) ** 2 / len(values) for values in (first, second)]
    error = math.sqrt(sum(spread))
    if not error:
        return (difference, difference), float(difference == 0)
    freedom = sum(spread) ** 2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(spread, (first, second), strict=True)
    )
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return (difference - reach, difference + reach), 2 * float(
        stats.t.sf(abs(difference) / error, freedom)
    )


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Corrected for as many tests as there are, so that chance finds any difference with probability LEVEL at most.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, index) in enumerate(known):
        corrected[index] = highest = max(highest, min(1.0, (len(known) - rank) * value))
    return corrected


def headline(ranked: Sequence[Standing]) -> str:
    """Who wins, in one sentence."""
    winner, *others = ranked
    best = f"{winner.name} has the highest validation MRR; its test MRR is {mean(winner.test_mrr):.4f}."
    if others[0].verdict == UNKNOWN:
        return f"{best} With one seed nobody knows whether that is more than noise."
    told = {
        BETTER: "On the test it is behind {}, by more than noise.",
        WITHIN: "Its difference to {} is within the noise between seeds.",
        MORE: "It is ahead of {} by more than noise.",
    }
    names = {
        verdict: ", ".join(each.name for each in others if each.verdict == verdict)
        for verdict in told
    }
    return " ".join(
        [best, *(text.format(names[verdict]) for verdict, text in told.items() if names[verdict])]
    )


def as_csv(ranked: Sequence[Standing]) -> str:
    """One line for each training."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "seed", "valid_mrr", "test_mrr", "accuracy", "seconds"))
    for each in ranked:
        columns = (each.seeds, each.valid_mrr, each.test_mrr, each.accuracy, each.seconds)
        writer.writerows((each.name, *values) for values in zip(*columns, strict=True))
    return text.getvalue()


def _standing(name: str, outcomes: Sequence[Outcome]) -> Standing:
    own = [outcome for outcome in outcomes if outcome.name.rpartition(SEED)[0] == name]
    return Standing(
        name=name,
        seeds=[outcome.report["config"]["train"]["seed"] for outcome in own],
        valid_mrr=[outcome.report["valid"]["mrr"] for outcome in own],
        test_mrr=[outcome.report["test"]["mrr"] for outcome in own],
        accuracy=[outcome.report["test"]["accuracy"] for outcome in own],
        seconds=[outcome.report["train"]["seconds"] for outcome in own],
        curves=[outcome.curves.get("evaluations") or [] for outcome in own],
    )


def _against(each: Standing, winner: Standing) -> Standing:
    behind = mean(winner.test_mrr) - mean(each.test_mrr)
    if min(len(each.test_mrr), len(winner.test_mrr)) < 2:
        return dataclasses.replace(each, behind=behind)
    interval, p = welch(winner.test_mrr, each.test_mrr)
    return dataclasses.replace(each, behind=behind, interval=interval, p=p)


def _judged(each: Standing, p: float | None) -> Standing:
    if p is None or p >= LEVEL:
        return dataclasses.replace(each, p=p, verdict=UNKNOWN if p is None else WITHIN)
    return dataclasses.replace(each, p=p, verdict=MORE if each.behind > 0 else BETTER)
