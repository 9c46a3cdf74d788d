"""The artifacts of a pipeline's step: what Kubeflow Pipelines shows of a noun, and how the next step finds the noun.

Nothing here imports kfp; an artifact is whatever has the attributes below. Large data stays on the volume: an artifact
carries a noun's manifest, and in its metadata the digest and the folder of the noun, relative to `data_root`.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError, to_user_error
from citeflow.utils import termination_message
from citeflow.utils.signals import handle_signals

UNCACHED = (
    "start the run again with caching off, as a step that is taken from the cache makes nothing"
)
"""The hint where an artifact stands for something that is not there."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Artifact(Protocol):
    """The part of a KFP artifact that the steps use."""

    path: str
    metadata: dict[str, Any]


class Metrics(Artifact, Protocol):
    """Figures that the run page shows in a table."""

    def log_metric(self, metric: str, value: float) -> None:
        """Add one figure."""


def component_entrypoint(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """End the process with the error's two lines and exit code, and leave the error where the caller finds it.

    In a loop, kfp.local goes on with other steps after one has failed, or was stopped; these end at once.
    """

    @functools.wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if before := termination_message.read():
            raise SystemExit(before.exit_code)
        try:
            with termination_message.alive_marker(), handle_signals():
                return function(*args, **kwargs)
        except Exception as error:
            told = to_user_error(error)
            termination_message.write(told)
            print(told, file=sys.stderr, flush=True)
            raise SystemExit(told.exit_code) from None

    return run


def carry(artifact: Artifact, place: Path, kind: str, data_root: str) -> str:
    """Let an artifact hold a noun's manifest; returns the noun's digest."""
    files.copy_file(place / files.MANIFEST, Path(artifact.path))
    return describe(artifact, place, kind, data_root)


def describe(artifact: Artifact, place: Path, kind: str, data_root: str) -> str:
    """Note in an artifact what noun it stands for, and where that lies; returns the noun's digest."""
    manifest = files.read_manifest(place, kind)
    sha256 = str(manifest.sha256)
    facts = {
        name: value
        for name, value in manifest.facts.items()
        if isinstance(value, (str, int, float, bool))
    }
    artifact.metadata.update(facts)
    artifact.metadata.update(kind=kind, sha256=sha256, location=str(place.relative_to(data_root)))
    return sha256


def find(artifact: Artifact, kind: str, data_root: str, sha256: str = "") -> Path:
    """The folder of the noun that an artifact stands for.

    Raises:
        NotFoundError: it is no longer on the volume.
        CorruptError: something else lies there by now, or a part of it is missing.
    """
    location = Path(str(artifact.metadata.get("location", "")))
    if location == Path() or location.is_absolute() or ".." in location.parts:
        raise CorruptError(f"not an artifact of a {kind}", artifact.path, hint=UNCACHED)
    place = Path(data_root) / location
    if not (place / files.MANIFEST).is_file():
        raise NotFoundError(f"the {kind} is no longer on the volume", place, hint=UNCACHED)
    try:
        found = files.read_manifest(place, kind).sha256
    except CorruptError as error:
        raise CorruptError(error.what, error.value, hint=UNCACHED) from None
    if found != (sha256 or artifact.metadata.get("sha256")):
        hint = f"{UNCACHED}; if another run has the same name, under another one"
        raise CorruptError(f"not the {kind} that this run made", place, hint=hint)
    return place


def log_figures(metrics: Metrics, facts: dict[str, Any]) -> None:
    """Put the numbers among some facts on the run page."""
    for name, value in facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            metrics.log_metric(name, float(value))
