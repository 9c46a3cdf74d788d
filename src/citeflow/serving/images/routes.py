"""Routes about pictures and the classes that they show.

Legend: B images of a request, C channels, H height, W width, K classes, k classes that are listed.
"""

import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from fastapi import APIRouter, Query, Request
from pydantic import JsonValue
from starlette.responses import Response

from citeflow import __version__
from citeflow.errors import DataError
from citeflow.serving import inference_protocol as protocol
from citeflow.serving.app import QueuedRoute, asked
from citeflow.serving.images import schema, tensors
from citeflow.serving.images.index import ImageIndex
from citeflow.serving.problems import json_response
from citeflow.serving.schema import InferBody
from citeflow.serving.served import Service
from citeflow.tasks.images import pictures
from citeflow.tasks.images.config import ImagesConfig

MAX_PIXELS = 16 << 20
"""Of a picture, by its header, before anything is decoded."""

AT_A_TIME = 32
"""Images of a forward pass; between two of them a request may be given up."""

facts = APIRouter(prefix="/v1")
picture_routes = APIRouter(prefix="/v1", route_class=QueuedRoute)
inference = APIRouter(prefix="/v2", route_class=QueuedRoute)

SERVICE = Service(
    summary="The classes that pictures most likely show.",
    routers=(facts, picture_routes, inference),
    page=Path(__file__).parent / "page",
    max_body_bytes=10 << 20,
)

PICTURE: dict[str, JsonValue] = {
    "requestBody": {
        "required": True,
        "description": f"The file itself, of {MAX_PIXELS:,} pixels at most.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in ("image/png", "image/jpeg")
        },
    }
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Top:
    """The most probable classes of some images, the first one first."""

    label_Bk: list[list[str]]
    probability_Bk: list[list[float]]
    logit_Bk: list[list[float]]


def _index(request: Request) -> ImageIndex:
    index = asked(request).index
    assert isinstance(index, ImageIndex)
    return index


def _top(index: ImageIndex, image_BCHW: torch.Tensor, k: int, stop: threading.Event) -> Top:
    """Classify images; those behind the event are left out, as nobody waits for them."""
    chunks = []
    for first in range(0, len(image_BCHW), AT_A_TIME):
        chunks.append(index.logits(image_BCHW[first : first + AT_A_TIME]))
        if stop.is_set():
            break
    logit_BK = torch.cat(chunks)
    classes = index.details.classes
    logit_Bk, class_Bk = logit_BK.topk(min(k, len(classes)), dim=1)
    return Top(
        label_Bk=[[classes[each] for each in row] for row in class_Bk.tolist()],
        probability_Bk=logit_BK.softmax(dim=1).gather(1, class_Bk).tolist(),
        logit_Bk=logit_Bk.tolist(),
    )


@facts.get("/about", response_model=schema.About)
async def about(request: Request) -> Response:
    """Say what answers."""
    index = _index(request)
    height, width, channels = index.shape
    return json_response(
        {
            "name": protocol.MODEL,
            "task": ImagesConfig.task,
            "version": index.manifest.sha256,
            "dataset": index.details.dataset,
            "architecture": index.details.config.model.architecture,
            "classes": [*index.details.classes],
            "height": height,
            "width": width,
            "channels": channels,
            "valid_accuracy": index.details.valid_accuracy,
            "citeflow": __version__,
        }
    )


@picture_routes.post(
    "/images:classify", response_model=schema.AnswerBody, openapi_extra={**PICTURE}
)
async def classify(
    request: Request, k: Annotated[int, Query(ge=1, le=schema.MAX_K)] = 5
) -> Response:
    """List the classes that a picture, a PNG or JPEG file, most likely shows."""
    shared, index = asked(request), _index(request)
    body = await request.body()

    def call(stop: threading.Event) -> dict[str, JsonValue]:
        image_HWC, (height, width) = read_picture(body, index.shape)
        image_BCHW = torch.from_numpy(image_HWC.transpose(2, 0, 1).copy()).unsqueeze(0)
        top = _top(index, image_BCHW, k, stop)
        rows = zip(top.label_Bk[0], top.probability_Bk[0], top.logit_Bk[0], strict=True)
        return {
            "width": width,
            "height": height,
            "remarks": _remarks((height, width), index.shape[:2]),
            "predictions": [
                {"rank": rank, "label": label, "probability": probability, "logit": logit}
                for rank, (label, probability, logit) in enumerate(rows, 1)
            ],
        }

    answer = await shared.queues.short.run(call)
    shared.metrics.answers.labels("picture").inc()
    return json_response(answer)


def read_picture(body: bytes, shape: tuple[int, int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode a picture as `preprocess` does.

    Returns:
        Its pixels [H, W, C] in the shape of the model, and its own height and width.

    Raises:
        DataError: it is no PNG or JPEG, is damaged, or has too many pixels.
    """
    if not body:
        raise DataError("no picture in the request", "", hint="its body is a PNG or JPEG file")
    name = "the body of the request"
    with (
        pictures.opened(io.BytesIO(body), name, MAX_PIXELS) as image,
        pictures.decoding(name, MAX_PIXELS),
    ):
        return pictures.upright(image, shape), pictures.size(image)


def _remarks(size: tuple[int, int], wanted: tuple[int, int]) -> list[JsonValue]:
    if size == wanted:
        return []
    (height, width), (new_height, new_width) = size, wanted
    stretched = "" if height * new_width == width * new_height else ", which stretched it"
    return [f"resized from {width} x {height} to {new_width} x {new_height} pixels{stretched}"]


@inference.post("/models/{model}/infer", response_model=InferBody)
async def infer(request: Request, model: str, body: schema.InferRequest) -> Response:
    """Classify images in a tensor."""
    protocol.check_model(model)
    shared, index = asked(request), _index(request)
    k = tensors.read_options(body).k

    def call(stop: threading.Event) -> Top:
        return _top(index, tensors.read_images(body, index.shape), k, stop)

    queue = shared.queues.of(takes_long=body.inputs[0].shape[0] > 1)
    top = await queue.run(call)
    shared.metrics.answers.labels("tensor").inc(len(top.label_Bk))
    columns: dict[str, list[JsonValue]] = {
        "label": [each for row in top.label_Bk for each in row],
        "probability": [each for row in top.probability_Bk for each in row],
        "logit": [each for row in top.logit_Bk for each in row],
    }
    shape = [len(top.label_Bk), len(top.label_Bk[0])]
    return json_response(protocol.response(index, columns, shape, id=body.id))
