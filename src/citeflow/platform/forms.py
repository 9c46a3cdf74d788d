"""The form of a run: its fields are the settings of the task, with their help and limits."""

import typing
from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from citeflow import own_model
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError
from citeflow.platform.schema import (
    Choice,
    FormBody,
    FormField,
    Preset,
    Submission,
    TaskName,
    Value,
)
from citeflow.tasks import get_task, load_settings

FIRST = {
    "citation": (
        "train.minutes",
        "train.epochs",
        "model.predictor",
        "model.hidden_channels",
        "model.num_layers",
        "train.lr",
        "synthetic.num_papers",
    ),
    "images": (
        "train.minutes",
        "train.epochs",
        "model.architecture",
        "model.channels",
        "train.batch_size",
        "train.lr",
        "generated.num_images",
    ),
}
"""Settings that most people look at; all others are advanced."""

MODEL = "default"
"""The task's own model."""

DATASETS = {
    "synthetic": "A citation graph that is made on the spot, as hard as ogbl-citation2.",
    "ogbl-citation2": "OGB's graph: 2.9 million papers, 30 million citations, a download of 2 GB.",
    "garments": "Drawings of clothes that are made on the spot.",
}
"""Help by dataset."""

OWN = {f"model.{name}": name for name in own_model.SUFFIXES}
"""Settings that name a file, by which kind of upload they take."""

PRESETS = {
    "default": "What is best for most data.",
    "seed": "The student model that citeflow grew out of, to compare with: it scores far lower.",
    "board": "For ogbl-citation2's leaderboard: five times the epochs, and no dropout.",
}
"""Help by preset."""

REFUSED = (*OWN, "sandbox.")
"""Begins of settings that no field of the form has: files, the limits of code."""

LABELS = {"lr": "learning rate", "aggr": "aggregation"}
"""Labels of settings whose names are abbreviations."""

LIMITS = {
    "minimum": "ge",
    "exclusive_minimum": "gt",
    "maximum": "le",
    "exclusive_maximum": "lt",
}
"""Fields of the form, and how pydantic calls them."""


def form(task: TaskName, max_workers: int, code_problem: str = "") -> FormBody:
    """Return the form of a task.

    Args:
        task: its name.
        max_workers: by the quota of the user.
        code_problem: why code of one's own cannot run.
    """
    chosen = get_task(task)
    fields = list(_fields(task, chosen.config))
    first = [each for each in fields if not each.advanced]
    first.sort(key=lambda each: FIRST[task].index(each.name))
    return FormBody(
        task=task,
        fields=[*first, *(each for each in fields if each.advanced)],
        datasets=[Choice(name=name, help=DATASETS.get(name, "")) for name in chosen.datasets],
        models=[Choice(name=MODEL, help="citeflow's own model, as the settings describe it.")],
        presets=[
            Preset(name=name, help=PRESETS[name], settings=_flat(settings))
            for name, settings in chosen.presets.items()
        ],
        max_workers=max_workers,
        code_problem=code_problem,
    )


def given_settings(wanted: Submission) -> dict[str, Value]:
    """Return the settings that a submission gives, those of its preset too."""
    return {**_flat(get_task(wanted.task).presets[wanted.preset]), **wanted.settings}


def read_settings(task: str, preset: str, given: Mapping[str, Value]) -> TaskConfig:
    """Return all settings of a submission.

    Raises:
        ConfigError: one is unknown, out of its range, or not given here.
    """
    for name in given:
        if name.startswith(REFUSED):
            hint = "of a model of your own, `upload:ID`" if name in OWN else ""
            raise ConfigError("no setting of a run here", name, hint=hint)
    return load_settings(task, preset=preset, text=_as_yaml(given))


def _flat(sections: Mapping[str, Mapping[str, object]]) -> dict[str, Value]:
    """Return values by full name, such as `train.minutes`."""
    return {
        f"{section}.{key}": value
        for section, settings in sections.items()
        for key, value in settings.items()
        if isinstance(value, bool | int | float | str)
    }


def _as_yaml(given: Mapping[str, Value]) -> str:
    import yaml

    sections: dict[str, dict[str, Value]] = {}
    for name, value in given.items():
        section, dot, key = name.partition(".")
        if not dot:
            raise ConfigError("unknown setting", name, hint="such as train.minutes")
        sections.setdefault(section, {})[key] = value
    return yaml.safe_dump(sections) if sections else ""


def _fields(task: str, config: type[TaskConfig]) -> Iterator[FormField]:
    for group, section in config.model_fields.items():
        record = section.annotation
        assert isinstance(record, type)
        for key, info in record.model_fields.items():
            name = f"{group}.{key}"
            if name.startswith(REFUSED):
                continue
            choices = typing.get_args(info.annotation) if _is_choice(info) else ()
            yield FormField(
                name=name,
                label=LABELS.get(key, key.replace("num_", "number of ", 1).replace("_", " ")),
                help=" ".join((info.description or "").split()),
                group=group,
                type=_kind(info),
                default=info.default,
                choices=[str(choice) for choice in choices],
                advanced=name not in FIRST[task],
                **_limits(info),
            )


def _is_choice(info: FieldInfo) -> bool:
    return typing.get_origin(info.annotation) is typing.Literal


def _kind(info: FieldInfo) -> typing.Literal["number", "integer", "text", "choice", "bool"]:
    if _is_choice(info):
        return "choice"
    if info.annotation is bool:
        return "bool"
    if info.annotation is int:
        return "integer"
    return "number" if info.annotation is float else "text"


def _limits(info: FieldInfo) -> dict[str, typing.Any]:
    found = {}
    for name, attribute in LIMITS.items():
        values = [getattr(item, attribute, None) for item in info.metadata]
        found[name] = next((value for value in values if value is not None), None)
    return found
