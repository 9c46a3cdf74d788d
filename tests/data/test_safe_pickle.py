"""Files of torch.save, honest and hostile."""

import builtins
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from citeflow.data.safe_pickle import read_arrays
from citeflow.errors import DataError, NotFoundError, UnavailableError

ARRAYS = {
    "source_node": np.arange(5),
    "target_node_neg": np.arange(-6, 6, dtype=np.int32).reshape(4, 3),
}

containers = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
protocols = pytest.mark.parametrize("protocol", [2, 3, 4])


def save(path: Path, content: object, *, is_zip: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    return path


def pack(path: Path, pickled: bytes) -> Path:
    """A pickle in the container of torch.save."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
    return path


class Calls:
    """A pickle of it calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.recipe = (function, arguments)

    def __reduce__(self) -> Any:
        return self.recipe


def assert_same(read: dict[str, np.ndarray]) -> None:
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@containers
@protocols
def test_numpy_arrays_are_read_from_every_container_and_protocol(tmp_path, is_zip, protocol):
    assert_same(read_arrays(save(tmp_path / "a.pt", ARRAYS, is_zip=is_zip, protocol=protocol)))


@pytest.mark.parametrize(("protocol", "length_byte"), [(2, False), (3, False), (4, True)])
def test_arrays_under_the_names_of_numpy_1_are_read(tmp_path, protocol, length_byte):
    pickled = pickle.dumps(ARRAYS, protocol)
    if length_byte:
        pickled = pickled[:2] + pickled[11:].replace(
            b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray"
        )
    else:
        pickled = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in pickled
    assert_same(read_arrays(pack(tmp_path / "a.pt", pickled)))


@containers
def test_tensors_are_read_too(tmp_path, is_zip):
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    assert_same(read_arrays(save(tmp_path / "a.pt", tensors, is_zip=is_zip)))


@protocols
def test_column_order_and_big_endian_arrays_keep_their_values(tmp_path, protocol):
    array = np.arange(6).reshape(2, 3)
    odd = {"columns": np.asfortranarray(array), "big": array.astype(">i8")}
    read = read_arrays(save(tmp_path / "a.pt", odd, protocol=protocol))
    np.testing.assert_array_equal(read["columns"], array)
    np.testing.assert_array_equal(read["big"], array)


@containers
@protocols
@pytest.mark.parametrize(
    "attack",
    [
        lambda canary: Calls(os.system, f"touch {canary}"),
        lambda canary: Calls(subprocess.check_call, ["touch", canary]),
        lambda canary: Calls(builtins.eval, f"open({canary!r}, 'w')"),
        lambda canary: Calls(builtins.exec, f"open({canary!r}, 'w')"),
        lambda canary: Calls(builtins.open, canary, "w"),
        lambda canary: Calls(getattr, Calls(builtins.__import__, "os"), "system"),
        lambda canary: Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, canary))),
        lambda canary: Calls(np.save, canary, 1),
        lambda canary: Calls(np.memmap, canary, "u1", "w+", 0, (1,)),
        lambda canary: Calls(torch.save, 1, canary),
        lambda canary: {"source_node": np.array([Calls(os.mkdir, canary)], dtype=object)},
        lambda canary: {Calls(os.mkdir, canary): np.arange(3)},
    ],
)
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, is_zip, protocol, attack):
    canary = tmp_path / "canary"
    path = save(tmp_path / "a.pt", attack(str(canary)), is_zip=is_zip, protocol=protocol)
    with pytest.raises(DataError, match="not a file of plain arrays") as caught:
        read_arrays(path)
    assert not canary.exists()
    assert "\n" not in caught.value.what + caught.value.value


@protocols
@pytest.mark.parametrize(
    "content",
    [
        {"a": np.array(["text"])},
        {"a": np.array([None])},
        {"a": np.array([(1, 2)], dtype="i4,i4")},
        {"a": np.datetime64("2020-01-01")},
        {"a": "text"},
        {"a": {"b": np.arange(3)}},
        {"a": [1, 2.5, "x"]},
        [np.arange(3)],
        None,
    ],
)
def test_anything_but_a_dict_of_numbers_is_refused(tmp_path, content, protocol):
    with pytest.raises(DataError):
        read_arrays(save(tmp_path / "a.pt", content, protocol=protocol))


def state_of_array(shape: tuple[int, ...], content: bytes) -> Calls:
    """An array whose shape and bytes do not belong together."""
    array = Calls(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b")
    array.recipe = (*array.recipe, (1, shape, np.dtype("i8"), False, content))
    return array


@protocols
@pytest.mark.parametrize("shape", [(4,), (-7, -1), (1 << 62,), ("x",)])
def test_an_array_that_lies_about_its_size_is_refused(tmp_path, shape, protocol):
    path = save(tmp_path / "a.pt", {"a": state_of_array(shape, bytes(24))}, protocol=protocol)
    with pytest.raises(DataError):
        read_arrays(path)


@containers
@protocols
def test_a_cut_file_is_refused(tmp_path, is_zip, protocol):
    path = save(tmp_path / "a.pt", ARRAYS, is_zip=is_zip, protocol=protocol)
    content = path.read_bytes()
    for share in (0, 0.001, 0.3, 0.7):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError):
            read_arrays(path)


def test_a_text_file_or_another_zip_is_refused(tmp_path):
    (tmp_path / "a.pt").write_text("<html>")
    with pytest.raises(DataError):
        read_arrays(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("papers.csv", "id\n")
    with pytest.raises(DataError):
        read_arrays(tmp_path / "a.pt")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        read_arrays(tmp_path / "a.pt")


def test_without_torch_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = save(tmp_path / "a.pt", ARRAYS)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnavailableError, match="torch is not installed"):
        read_arrays(path)
