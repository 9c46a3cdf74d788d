"""The runs of an experiment: which there shall be, and what became of them.

A run of an experiment is named `<experiment>/<trial>`, as are its folders below `runs` and `logs`. So TensorBoard shows
an experiment's runs under one name, or alone with `--logdir logs/<experiment>`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from citeflow import config, files, paths
from citeflow.config import Config
from citeflow.errors import ConfigError, CorruptError
from citeflow.kubernetes.job_spec import MOST_WORKERS
from citeflow.utils.records import convert

Json = dict[str, Any]
MOST_TRIALS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A run that is part of an experiment."""

    run_name: str
    workers: int
    config: Config

    def item(self) -> Json:
        """What a loop of a pipeline hands to the steps of this run."""
        return {
            "run_name": self.run_name,
            "workers": self.workers,
            "settings": config.to_yaml(self.config),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a trial."""

    name: str
    """Its own name, without the experiment's."""

    report: Json
    """Content of its report.json."""

    curves: Json
    """Content of its curves.json."""


def scaling_trials(
    settings: str, run: str, workers: Sequence[object], epochs: Sequence[object]
) -> list[Trial]:
    """Every number of workers with every number of epochs; `m-1-w-3-e-10` is a master, 3 more workers and 10 epochs.

    Args:
        settings: YAML text with the settings of all of them, but for the epochs.
        run: name of the experiment.
        workers: numbers of workers, each once.
        epochs: passes over the training citations, each once.

    Raises:
        ConfigError: a number is wrong, or none is given.
    """
    base, lengths = config.from_yaml(settings), _numbers("epochs", epochs, float)
    nums = _numbers("workers", workers, int)
    if nums[-1] > MOST_WORKERS or len(nums) * len(lengths) > MOST_TRIALS:
        raise ConfigError(
            "workers", nums[-1], hint=f"at most {MOST_WORKERS} workers and {MOST_TRIALS} runs"
        )
    return [
        Trial(
            run_name=_run_name(run, f"m-1-w-{num - 1}-e-{plain(length)}".replace(".", "-")),
            workers=num,
            config=config.changed(base, {"train": {"epochs": length, "minutes": 0.0}}),
        )
        for length in lengths
        for num in nums
    ]


def comparison_trials(
    settings: str, run: str, models: str, seeds: Sequence[object], workers: int
) -> list[Trial]:
    """Every model with every seed, named as `dot-seed-0`.

    Args:
        settings: YAML text with the settings that all of them have in common.
        run: name of the experiment.
        models: YAML text with what is different, by name of the model: `{dot: {model: {predictor: dot}}, ...}`.
        seeds: of weights, batches, negatives and dropout, each once.
        workers: of each training.

    Raises:
        ConfigError: a name, a setting or a seed is wrong, or none is given.
    """
    base = config.from_yaml(settings)
    numbers = _numbers("seeds", seeds, int, least=0)
    variants = {
        name: config.changed(base, changes) for name, changes in parse_models(models).items()
    }
    return [
        Trial(
            run_name=_run_name(run, f"{name}-seed-{seed}"),
            workers=workers,
            config=config.changed(variant, {"train": {"seed": seed}}),
        )
        for name, variant in variants.items()
        for seed in numbers
    ]


def parse_models(text: str) -> dict[str, Mapping[str, Any]]:
    """The models of a comparison by name, each with the settings that make it.

    Raises:
        ConfigError: it is not YAML of this form, or there are fewer than two.
    """
    hint = 'names and their settings, such as "{sage: {}, dot: {model: {predictor: dot}}}"'
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("models are not YAML", str(error).splitlines()[0], hint=hint) from None
    if not isinstance(values, Mapping) or len(values) < 2:
        raise ConfigError("not two models or more", text.strip(), hint=hint)
    for name, changes in values.items():
        if not isinstance(name, str):
            raise ConfigError("name of a model", name, hint="put it into quotes")
        paths.check_name(name)
        if changes is not None and not isinstance(changes, Mapping):
            raise ConfigError(f"settings of the model {name}", changes, hint=hint)
        _check_changes(name, changes or {})
    return {name: changes or {} for name, changes in values.items()}


def _check_changes(name: str, changes: Mapping[str, Any]) -> None:
    """All models learn from one graph, and from every seed."""
    if given := changes.keys() & {"data", "synthetic"}:
        raise ConfigError(
            f"the model {name} sets",
            ", ".join(given),
            hint="all models have the same data: use --set",
        )
    if isinstance(changes.get("train"), Mapping) and "seed" in changes["train"]:
        raise ConfigError(
            f"the model {name} sets", "train.seed", hint="every model has every seed: use --seeds"
        )


def outcomes(items: Iterable[Json], sha256s: Iterable[str], data_root: Path) -> list[Outcome]:
    """Read the reports of an experiment's runs from the volume.

    Args:
        items: what the loop went over.
        sha256s: digests of the EvalReports that it made, in any order.
        data_root: the shared volume.

    Raises:
        NotFoundError: a report is not there.
        CorruptError: one is damaged, or not one that this experiment made.
    """
    known = set(sha256s)
    return [_outcome(paths.run_folder(data_root, str(item["run_name"])), known) for item in items]


def _outcome(folder: Path, known: set[str]) -> Outcome:
    place = folder / "report"
    if files.verify(place, "EvalReport").sha256 not in known:
        hint = "another experiment of this name has run meanwhile; start this one again under another name"
        raise CorruptError("not the report that this experiment made", place, hint=hint)
    report, curves = (files.read_json(place / f"{name}.json") for name in ("report", "curves"))
    return Outcome(name=folder.name, report=report, curves=curves)


def plain(number: float) -> str:
    """A number without an exponent, and whole where it is."""
    return str(int(number)) if number.is_integer() else str(number)


def _run_name(run: str, trial: str) -> str:
    return f"{paths.check_name(run)}/{paths.check_name(trial)}"


def _numbers(name: str, values: Sequence[object], kind: type, *, least: float = 1) -> list[Any]:
    """The numbers of a list, smallest first."""
    numbers = sorted(convert(name, value, kind) for value in values)
    if not 0 < len(numbers) <= MOST_TRIALS or len(set(numbers)) < len(numbers):
        raise ConfigError(name, list(values), hint="one number or more, each once")
    if numbers[0] < least and not (kind is float and numbers[0] > 0):
        raise ConfigError(
            name,
            numbers[0],
            hint="must be above 0" if kind is float else f"must be {least} or more",
        )
    return numbers
