"""Check the parameters of an experiment's pipeline before it is submitted."""

from collections.abc import Mapping
from typing import TypeVar

from citeflow import config
from citeflow.config import Config, TaskConfig
from citeflow.experiments import search_space, trials
from citeflow.utils import records
from citeflow.utils.records import Int, Record, Str

ANY_NAME = "experiment"
"""Stands in for the name of the experiment, which the first stage chooses."""

R = TypeVar("R", bound=Record)


class ScalingParams(Record):
    """Parameters of the pipeline `scaling` that no other has."""

    workers: list[object]
    epochs: list[object]
    parallel: Int


class ComparisonParams(Record):
    """Parameters of the pipeline `compare` that no other has."""

    models: Str
    seeds: list[object]
    workers: Int
    parallel: Int


class TuningParams(Record):
    """Parameters of the pipeline `tune` that no other has."""

    space: Str
    trials: Int
    parallel: Int


def validate_scaling(values: Mapping[str, object], settings: TaskConfig) -> None:
    """Check the numbers of workers and epochs.

    Raises:
        ConfigError: one of them is wrong.
    """
    own = _own(ScalingParams, values)
    trials.scaling_trials(config.to_yaml(settings), ANY_NAME, own.workers, own.epochs)
    trials.check_parallel(own.parallel)


def validate_comparison(values: Mapping[str, object], settings: TaskConfig) -> None:
    """Check the models and the seeds.

    Raises:
        ConfigError: one of them is wrong.
    """
    own = _own(ComparisonParams, values)
    text = config.to_yaml(settings)
    trials.comparison_trials(text, ANY_NAME, own.models, own.seeds, own.workers)
    trials.check_parallel(own.parallel)


def validate_tuning(values: Mapping[str, object], settings: Config) -> None:
    """Check the search space and the number of trials.

    Raises:
        ConfigError: one of them is wrong.
    """
    own = _own(TuningParams, values)
    search_space.from_yaml(own.space, settings)
    search_space.check_trials(own.trials, own.parallel)


def _own(record: type[R], values: Mapping[str, object]) -> R:
    return records.load(record, {name: values.get(name) for name in record.model_fields})
