"""The Open Inference Protocol (V2): the parts that all tasks have.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from pydantic import JsonValue

from citeflow.serving.problems import ProblemError
from citeflow.serving.served import Served, Tensors

MODEL = "citeflow"
"""Name of the model that is served, whatever its task is."""


def check_model(model: str) -> None:
    """Check that a request asks for the model that is served.

    Raises:
        ProblemError: it asks for another.
    """
    if model != MODEL:
        raise ProblemError(HTTPStatus.NOT_FOUND, "no such model", hint=MODEL)


def version(index: Served) -> str:
    """Return the version of the model: the beginning of the digest of its index."""
    return index.manifest.sha256[:12]


def metadata(index: Served) -> dict[str, JsonValue]:
    """Describe the model."""
    return {
        "name": MODEL,
        "versions": [version(index)],
        "platform": "citeflow",
        "inputs": _describe(index.inputs),
        "outputs": _describe(index.outputs),
    }


def _describe(tensors: Tensors) -> list[JsonValue]:
    return [
        {"name": name, "datatype": datatype, "shape": [*shape]}
        for name, (datatype, shape) in tensors.items()
    ]


def response(
    index: Served, columns: Mapping[str, Sequence[JsonValue]], shape: Sequence[int], *, id: str
) -> dict[str, JsonValue]:
    """Return the output tensors of an answer.

    Args:
        index: that answered.
        columns: elements of each of its outputs, row by row.
        shape: of all of them.
        id: of the request, which the answer repeats; empty for none.
    """
    outputs: list[JsonValue] = [
        {"name": name, "datatype": datatype, "shape": [*shape], "data": [*columns[name]]}
        for name, (datatype, _) in index.outputs.items()
    ]
    values: dict[str, JsonValue] = {"model_name": MODEL, "model_version": version(index)}
    if id:
        values["id"] = id
    return {**values, "outputs": outputs}
