"""Changes to a compiled pipeline: other images, no cache."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from citeflow.errors import ConfigError
from citeflow.kubernetes.job_spec import IMAGE, quantity


def with_images(text: str, *, step_image: str = "", train_image: str = "") -> str:
    """Return a compiled pipeline with other images; where none is given, the very same text.

    Args:
        text: the compiled pipeline.
        step_image: image of every stage.
        train_image: image of the workers of a job, wherever the pipeline names it.

    Raises:
        ConfigError: the pipeline names no image for workers.
    """
    if not step_image and not train_image:
        return text
    documents = list(yaml.safe_load_all(text))
    if step_image:
        for executor in documents[0]["deploymentSpec"]["executors"].values():
            executor["container"]["image"] = step_image
    if train_image:
        changed = _replace_leaves(documents, IMAGE, train_image)
        if changed == documents and train_image != IMAGE:
            hint = "run `citeflow compile`"
            raise ConfigError("the pipeline names no image for workers", IMAGE, hint=hint)
        documents = changed
    return yaml.safe_dump_all(documents, sort_keys=False)


def without_cache(text: str) -> str:
    """Return a compiled pipeline with no stage cached: a run cannot ask for it, a version can."""
    documents = list(yaml.safe_load_all(text))
    for task in tasks(documents[0]):
        task["cachingOptions"] = {}
    return yaml.safe_dump_all(documents, sort_keys=False)


def tasks(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every task of a compiled pipeline, those within loops and conditions too."""
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def largest_limits(texts: Iterable[str]) -> dict[str, str]:
    """Return the largest limits of cpu and memory that compiled pipelines give a step.

    Those that a step settles for others are left out.
    """
    found: dict[str, list[str]] = {"cpu": [], "memory": []}
    for text in texts:
        for executor in next(yaml.safe_load_all(text))["deploymentSpec"]["executors"].values():
            resources = executor["container"]["resources"]
            found["cpu"].append(resources["resourceCpuLimit"])
            found["memory"].append(resources["resourceMemoryLimit"])
    return {
        name: max((each for each in amounts if "{{" not in each), key=quantity)
        for name, amounts in found.items()
    }


def _replace_leaves(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replace_leaves(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace_leaves(each, old, new) for each in value]
    return new if value == old else value
