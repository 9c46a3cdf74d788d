"""Bodies of requests and answers about pictures, as the OpenAPI page describes them."""

from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue, StrictInt, StrictStr

from citeflow.utils.records import Record

MAX_K = 1_000
MAX_IMAGES = 256
"""Images of a request in tensors."""


class Options(Record):
    """Which classes are listed."""

    k: StrictInt = Field(5, ge=1, le=MAX_K)
    """How many, at most: there are no more than the model has."""


class Prediction(BaseModel):
    """A class that a picture may show."""

    rank: int
    label: str
    probability: float
    logit: float


class AnswerBody(BaseModel):
    """The most probable classes of a picture, with its size in pixels."""

    width: int
    height: int
    remarks: list[str]
    predictions: list[Prediction]


class About(BaseModel):
    """Facts of what answers: a model, and the images that it takes."""

    name: str
    task: str
    version: str
    dataset: str
    architecture: str
    classes: list[str]
    height: int
    width: int
    channels: int
    valid_accuracy: float
    citeflow: str


class Tensor(BaseModel):
    """Images [N, H, W, C] in JSON: UINT8 from 0 to 255, or FP32 from 0 to 1.

    One channel may be left out of the shape. The data are flat, or lists of lists.
    """

    name: StrictStr
    shape: list[StrictInt] = Field(min_length=3, max_length=4)
    datatype: Literal["UINT8", "FP32"]
    data: list[Any]
    parameters: dict[str, JsonValue] = {}


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol; `parameters` may hold what `Options` has."""

    id: StrictStr = Field("", max_length=1_000)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    parameters: dict[str, JsonValue] = {}
