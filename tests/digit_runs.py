"""Scikit-learn's digits, prepared, and a classifier of them: fixtures of several folders."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from citeflow.paths import RunPaths
from citeflow.tasks import get_task, load_settings
from citeflow.tasks.images.config import ImagesConfig

SETTINGS = ["train.epochs=6", "train.num_validations=3"]


@dataclass(frozen=True)
class Digits:
    data_root: Path
    images: Path
    config: ImagesConfig


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Digits:
    """1,797 digits of 8 x 8 pixels."""
    root = tmp_path_factory.mktemp("digits")
    config = load_settings("images", overrides=SETTINGS)
    task = get_task("images")
    raw = task.download("digits", data_root=root, settings=config)
    return Digits(root, task.preprocess(raw, data_root=root, settings=config.to_dict()), config)


@pytest.fixture(scope="session")
def classified(digits, train_alone) -> RunPaths:
    """A run with the model and the report of the digits."""
    run = RunPaths(digits.data_root, "digits")
    model = train_alone(digits.images, run, digits.config)
    task = get_task("images")
    report = task.evaluate(model, data=digits.images, run=run)
    task.publish(report, model=model, run=run, out=run.published)
    return run
