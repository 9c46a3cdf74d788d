"""Check the parameters of an experiment's pipeline before it is submitted."""

from collections.abc import Mapping
from typing import Any

from citeflow import config
from citeflow.config import Config
from citeflow.experiments import search_space, trials

ANY_NAME = "experiment"
"""Stands in for the name of the experiment, which the first stage chooses."""


def validate_scaling(values: Mapping[str, Any], settings: Config) -> None:
    """Check the numbers of workers and epochs.

    Raises:
        ConfigError: one of them is wrong.
    """
    text = config.to_yaml(settings)
    trials.scaling_trials(text, ANY_NAME, values["workers"], values["epochs"])
    trials.check_parallel(values["parallel"])


def validate_comparison(values: Mapping[str, Any], settings: Config) -> None:
    """Check the models and the seeds.

    Raises:
        ConfigError: one of them is wrong.
    """
    text = config.to_yaml(settings)
    models = values["models"]
    trials.comparison_trials(text, ANY_NAME, models, values["seeds"], values["workers"])
    trials.check_parallel(values["parallel"])


def validate_tuning(values: Mapping[str, Any], settings: Config) -> None:
    """Check the search space and the number of trials.

    Raises:
        ConfigError: one of them is wrong.
    """
    search_space.from_yaml(values["space"], settings)
    search_space.check_trials(values["trials"], values["parallel"])
