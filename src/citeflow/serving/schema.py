"""Bodies of answers that all tasks have, as the OpenAPI page describes them."""

from typing import Any

from pydantic import BaseModel


class Ready(BaseModel):
    """State of the server, or of a model: queries are answered or not."""

    name: str = ""
    ready: bool


class OutputTensor(BaseModel):
    """A tensor of an answer."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferBody(BaseModel):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str = ""
    outputs: list[OutputTensor]
