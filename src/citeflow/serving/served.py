"""The seam between the server and what it serves: everything that a task has to provide.

The application, the guard, reload and the queue know these and no task. A task makes and opens its
index (`Task.write_index`, `Task.open_index`), and has a `Service`: routes and a page.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from citeflow import files
from citeflow.artifacts import SERVING_INDEX
from citeflow.files import Manifest

if TYPE_CHECKING:  # the stage that makes an index has no use for a web framework
    from fastapi import APIRouter

Tensors = Mapping[str, tuple[str, list[int]]]
"""Datatype and shape of tensors of the Open Inference Protocol by their name; -1 is any length."""


class Served(Protocol):
    """A ServingIndex that was opened, ready to answer."""

    @property
    def manifest(self) -> Manifest:
        """That of its folder."""

    @property
    def inputs(self) -> Tensors:
        """Tensors that it takes."""

    @property
    def outputs(self) -> Tensors:
        """Tensors that it answers with."""

    @property
    def size(self) -> Mapping[str, int]:
        """Numbers of what it holds, for the log and the metrics, such as papers."""

    def warm_up(self) -> None:
        """Answer something, so that no user waits for what is computed once or read first."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Everything that a server shows of a task."""

    summary: str
    """Of the OpenAPI page."""

    routers: "tuple[APIRouter, ...]"
    """Its own routes, `/v2/models/{model}/infer` among them; `app.asked` has their index."""

    page: Path
    """Folder with the files of its page, besides those that all pages share."""

    max_body_bytes: int
    """Of a request."""


def is_made_of(folder: Path, inputs: Mapping[str, JsonValue]) -> bool:
    """Tell whether a ServingIndex is there, in one piece, and was made of some inputs.

    Raises:
        CorruptError: a file of it does not match its digest.
    """
    if not (folder / files.MANIFEST).is_file():
        return False
    return files.verify(folder, SERVING_INDEX).inputs == inputs
