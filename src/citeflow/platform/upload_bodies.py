"""Bodies of the API that describe uploads; `schema.py` has the others."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

Offer = Literal["dataset", "model"]
"""What an upload is offered as; its content says which kind of model it is."""
Kind = Literal["dataset", "weights", "code"]


class TensorBody(BaseModel):
    """A tensor of weights."""

    name: str
    shape: list[int]
    type: str
    """Such as F32."""


class Verdict(BaseModel):
    """The content of an upload, as it was found to be."""

    format: str
    summary: str
    warnings: list[str]
    papers: int | None = None
    citations: int | None = None
    sha256: str = ""
    """Of a model: the settings of its runs hold it."""
    parameters: int | None = None
    tensors: list[TensorBody] = []
    """Of weights, by name; the first 200."""


class UploadBody(BaseModel):
    """A file of a user that was found to be good; one that is not is refused with the reason."""

    id: str
    name: str
    kind: Kind
    bytes: int
    created: datetime
    verdict: Verdict


class UploadList(BaseModel):
    """Uploads, the newest first."""

    uploads: list[UploadBody]
