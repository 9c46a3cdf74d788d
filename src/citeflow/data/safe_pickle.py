"""Reads the arrays in a file of `torch.save` without trusting it: the one place where citeflow meets a pickle.

OGB ships its splits as pickled dicts of numpy arrays. Here no name in a pickle leads to numpy's or Python's own
functions: the few that arrays need lead to the stand-ins below, which know plain numbers only; any other is refused.
torch reads pickles of protocol 2, torch.save's default; newer protocols, which its `weights_only` reader does not know,
go to an unpickler with the same short list of names.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from citeflow.errors import INSTALL, DataError, NotFoundError, UnavailableError

_CODES = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}
_TORCH_DEFAULT_PROTOCOL = 2


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _CODES:
            raise ValueError(f"an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands in for numpy.ndarray."""

    values: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        flat = np.frombuffer(content, dtype=kind.dtype)
        self.values = flat.reshape(shape, order="F" if is_fortran else "C")


def _new_array(*_: object) -> _Array:
    """Stands in for numpy's _reconstruct."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode, with which protocol 2 stores bytes."""
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
"""numpy 1 wrote numpy.core, numpy 2 writes numpy._core."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _NAMES[f"{module}.{name}"]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a dict of arrays or tensors.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is damaged, or holds anything but arrays of numbers; nothing in it was executed.
        UnavailableError: torch is not installed.
    """
    try:
        content = _load(path)
        return {str(name): _plain(values) for name, values in content.items()}
    except FileNotFoundError:
        raise NotFoundError("no such file", path) from None
    except ImportError:
        raise UnavailableError("torch is not installed", path, hint=INSTALL) from None
    except Exception as error:  # a hostile pickle can make the readers raise anything
        hint = "nothing in it was executed; download the dataset again"
        raise DataError(
            "not a file of plain arrays", f"{path}: {_reason(error)}", hint=hint
        ) from None


def _plain(values: object) -> np.ndarray:
    array = values.values if isinstance(values, _Array) else np.asarray(values)
    if array.dtype.str[1:] not in _CODES:
        raise ValueError(f"an entry of type {array.dtype}")
    return array


def _reason(error: Exception) -> str:
    found = re.search(r"WeightsUnpickler error: (.+?)(\. Please|$)", str(error), re.MULTILINE)
    lines = (found[1] if found else str(error)).splitlines() or [""]
    return lines[0][:120].strip() or type(error).__name__


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        return _load_zip(path)
    with path.open("rb") as file:
        if _protocol(file.read(2)) == _TORCH_DEFAULT_PROTOCOL:
            return _load_by_torch(path)
        file.seek(0)
        _magic_number, _torch_protocol, _system, content = (
            _Unpickler(file).load() for _ in range(4)
        )
        return content


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
