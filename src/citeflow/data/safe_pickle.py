"""Read the arrays in a file of `torch.save` without trusting it: the one place that reads a pickle.

OGB ships its splits as pickled dicts of numpy arrays. A pickle is a program that calls functions by
name, so here no name leads to a function of numpy or Python: the few that arrays need lead to the
stand-ins below, which know plain numbers only, and any other name is refused.

torch's `weights_only` reader takes the same stand-ins, but reads pickles of protocol 2 only, the
default of torch.save; newer protocols go to an unpickler of our own with the same list of names.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from citeflow.errors import INSTALL, DataError, MissingPackageError, NotFoundError

_CODES = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}
_TORCH_DEFAULT_PROTOCOL = 2


class _Dtype:
    """Stand-in for numpy.dtype: plain numbers only, no objects and no fields."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _CODES:
            raise ValueError(f"an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":  # the only part of the state that changes what the bytes mean
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stand-in for numpy.ndarray, which `values` holds once its state is set."""

    values: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        # Both check that shape and content have one size; a pickle may claim anything.
        flat = np.frombuffer(content, dtype=kind.dtype)
        self.values = flat.reshape(shape, order="F" if is_fortran else "C")


def _new_array(*_: object) -> _Array:
    """Stand-in for numpy's _reconstruct."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for _codecs.encode: protocol 2 has no bytes and stores them as latin-1 text."""
    if encoding != "latin1":
        raise ValueError(f"text in {encoding!r}")
    return text.encode("latin1")


_NAMES: dict[str, Any] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy._core.multiarray._reconstruct": _new_array,
    "_codecs.encode": _encode,
}
"""Names that a pickle may use: numpy 1 wrote numpy.core, numpy 2 writes numpy._core."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _NAMES[f"{module}.{name}"]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a dict of arrays or tensors.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is damaged, or holds more than arrays of numbers; nothing in it was executed.
        MissingPackageError: torch is not installed.
    """
    try:
        content = _load(path)
        return {str(name): _to_numpy(values) for name, values in content.items()}
    except FileNotFoundError:
        raise NotFoundError("no such file", path) from None
    except ImportError:
        raise MissingPackageError("torch is not installed", path, hint=INSTALL) from None
    except Exception as error:  # hostile pickles make readers raise anything
        hint = "nothing in it was executed; download the dataset again"
        raise DataError(
            "not a file of plain arrays", f"{path}: {_reason(error)}", hint=hint
        ) from None


def _to_numpy(values: object) -> np.ndarray:
    array = values.values if isinstance(values, _Array) else np.asarray(values)
    if array.dtype.str[1:] not in _CODES:
        raise ValueError(f"an entry of type {array.dtype}")
    return array


def _reason(error: Exception) -> str:
    # torch wraps the reason in lines of advice, such as to load the file without protection.
    match = re.search(r"WeightsUnpickler error: (.+?)(\. Please|$)", str(error), re.MULTILINE)
    lines = (match[1] if match else str(error)).splitlines() or [""]
    return lines[0][:120].strip() or type(error).__name__


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        return _load_zip(path)
    with path.open("rb") as file:
        if _protocol(file.read(2)) == _TORCH_DEFAULT_PROTOCOL:
            return _load_by_torch(path)
        file.seek(0)
        # The old container is four pickles in a row: magic number, version, byte order, content.
        for _ in range(3):
            _Unpickler(file).load()
        return _Unpickler(file).load()


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        with archive.open(name) as file:
            if _protocol(file.read(2)) != _TORCH_DEFAULT_PROTOCOL:
                file.seek(0)
                return _Unpickler(file).load()
    return _load_by_torch(path)


def _protocol(head: bytes) -> int:
    return head[1] if len(head) == 2 and head[:1] == pickle.PROTO else 0


def _load_by_torch(path: Path) -> Any:
    import torch

    stand_ins = [(stand_in, name) for name, stand_in in _NAMES.items()]
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        return torch.load(path, map_location="cpu", weights_only=True)
