"""The tensors of the Open Inference Protocol: images in, the most probable classes out.

Legend: B images of a request, C channels, H height, W width.
"""

import math

import numpy as np
import torch

from citeflow.errors import DataError
from citeflow.serving.images.index import INPUT
from citeflow.serving.images.schema import MAX_IMAGES, InferRequest, Options, Tensor
from citeflow.utils import records


def read_options(request: InferRequest) -> Options:
    """Return which classes are listed.

    Raises:
        ConfigError: a parameter is unknown, or its value is wrong.
    """
    return records.load(Options, request.parameters, name="parameters")


def read_images(request: InferRequest, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return the images [B, C, H, W] of a request, with pixels from 0 to 255.

    Args:
        request: with one tensor.
        shape: height, width and channels that the model takes.

    Raises:
        DataError: the input is none that the model has, or has another shape or other values.
    """
    [tensor] = request.inputs
    if tensor.name != INPUT:
        raise DataError("unknown input", tensor.name[:40], hint=f"it is {INPUT}")
    _check_shape(tensor.shape, shape)
    values = _numbers(tensor)
    if values.size != math.prod(tensor.shape):
        value = f"{values.size} numbers for {tensor.shape}"
        raise DataError("the data do not have the shape", value)
    check = _check_bytes if tensor.datatype == "UINT8" else _check_shares
    image_BHWC = check(values).reshape(tensor.shape[0], *shape)
    return torch.from_numpy(np.ascontiguousarray(image_BHWC.transpose(0, 3, 1, 2)))


def _check_shape(given: list[int], shape: tuple[int, int, int]) -> None:
    """Check the shape of a tensor before its data are looked at."""
    allowed = [[*shape], [*shape[:2]]] if shape[2] == 1 else [[*shape]]
    if given[1:] not in allowed:
        hint = " or ".join(str(["N", *each]).replace("'", "") for each in allowed)
        raise DataError("shape of the images", given, hint=hint)
    if not 1 <= given[0] <= MAX_IMAGES:
        raise DataError("images of a request", given[0], hint=f"1 to {MAX_IMAGES}")


def _numbers(tensor: Tensor) -> np.ndarray:
    try:
        values = np.asarray(tensor.data)
    except (ValueError, OverflowError, RecursionError):  # lists of several lengths, or too deep
        values = np.empty(0, object)
    if values.dtype.kind not in "iuf":
        hint = "numbers, flat or as lists of lists"
        raise DataError("not the data of a tensor", tensor.datatype, hint=hint)
    return values


def _check_bytes(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
        hint = "whole numbers from 0 to 255; FP32 takes 0 to 1"
        raise DataError("values that are not of the datatype", "UINT8", hint=hint)
    return values.astype(np.uint8)


def _check_shares(values: np.ndarray) -> np.ndarray:
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        hint = "from 0 to 1; UINT8 takes 0 to 255"
        raise DataError("values out of range of the datatype", "FP32", hint=hint)
    return (255 * values).astype(np.float32)
