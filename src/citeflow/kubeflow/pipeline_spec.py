"""Changes to the text of a compiled pipeline: other images, no cache."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from citeflow.errors import ConfigError
from citeflow.kubernetes.job_spec import IMAGE


def with_images(text: str, *, step_image: str = "", train_image: str = "") -> str:
    """The compiled pipeline with other images; where none is given, the very same text.

    Raises:
        ConfigError: the pipeline names no image for workers.
    """
    if not step_image and not train_image:
        return text
    documents = list(yaml.safe_load_all(text))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        if step_image:
            executor["container"]["image"] = step_image
    if train_image and IMAGE not in set(_leaves(documents)):
        raise ConfigError(
            "the pipeline names no image for workers", IMAGE, hint="run `citeflow compile`"
        )
    changed = _replaced(documents, IMAGE, train_image) if train_image else documents
    return yaml.safe_dump_all(changed, sort_keys=False)


def without_cache(text: str) -> str:
    """The compiled pipeline with no step cached: a run can not ask for it, its version has to."""
    documents = list(yaml.safe_load_all(text))
    for task in tasks(documents[0]):
        task["cachingOptions"] = {}
    return yaml.safe_dump_all(documents, sort_keys=False)


def tasks(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every task of a compiled pipeline, those within loops and conditions too."""
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def _leaves(value: object) -> Iterator[object]:
    """Every text and number in nested values."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, old, new) for each in value]
    return new if value == old else value
