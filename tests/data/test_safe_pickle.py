"""Files of torch.save, honest and hostile."""

import builtins
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from citeflow.data.safe_pickle import read_arrays
from citeflow.errors import DataError, MissingPackageError, NotFoundError

ARRAYS = {
    "source_node": np.arange(5),
    "target_node_neg": np.arange(-6, 6, dtype=np.int32).reshape(4, 3),
}

containers = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
protocols = pytest.mark.parametrize("protocol", [2, 3, 4])


def save(path, content, *, is_zip=True, protocol=2):
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    return path


class Call:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.recipe = (function, arguments)

    def __reduce__(self):
        return self.recipe


def assert_same(read):
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@containers
@protocols
def test_read_arrays_from_every_container_and_protocol(tmp_path, is_zip, protocol):
    assert_same(read_arrays(save(tmp_path / "a.pt", ARRAYS, is_zip=is_zip, protocol=protocol)))
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    if protocol == 2:
        assert_same(read_arrays(save(tmp_path / "b.pt", tensors, is_zip=is_zip)))


@protocols
def test_read_arrays_that_numpy_1_has_written(tmp_path, protocol):
    pickled = pickle.dumps(ARRAYS, protocol)
    if protocol == 4:  # the frame with its length goes, and a length byte stands before each name
        pickled = pickled[:2] + pickled[11:].replace(b"\x16numpy._core", b"\x15numpy._core")
    pickled = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in pickled
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
    assert_same(read_arrays(tmp_path / "a.pt"))


@protocols
def test_read_arrays_keeps_column_order_and_endianness(tmp_path, protocol):
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
        lambda canary: Call(os.system, f"touch {canary}"),
        lambda canary: Call(subprocess.check_call, ["touch", canary]),
        lambda canary: Call(builtins.eval, f"open({canary!r}, 'w')"),
        lambda canary: Call(builtins.exec, f"open({canary!r}, 'w')"),
        lambda canary: Call(builtins.open, canary, "w"),
        lambda canary: Call(getattr, Call(builtins.__import__, "os"), "system"),
        lambda canary: Call(pickle.loads, pickle.dumps(Call(os.mkdir, canary))),
        lambda canary: Call(np.save, canary, 1),
        lambda canary: Call(np.memmap, canary, "u1", "w+", 0, (1,)),
        lambda canary: Call(torch.save, 1, canary),
        lambda canary: {"source_node": np.array([Call(os.mkdir, canary)], dtype=object)},
        lambda canary: {Call(os.mkdir, canary): np.arange(3)},
    ],
)
def test_read_arrays_executes_nothing(tmp_path, is_zip, protocol, attack):
    canary = tmp_path / "canary"
    path = save(tmp_path / "a.pt", attack(str(canary)), is_zip=is_zip, protocol=protocol)
    with pytest.raises(DataError, match="not a file of plain arrays") as caught:
        read_arrays(path)
    assert not canary.exists()
    assert "\n" not in caught.value.what + caught.value.value


def lying_array(shape):
    """An array whose shape and bytes do not belong together."""
    array = Call(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b")
    array.recipe = (*array.recipe, (1, shape, np.dtype("i8"), False, bytes(24)))
    return array


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
        *({"a": lying_array(shape)} for shape in ((4,), (-7, -1), (1 << 62,), ("x",))),
    ],
)
def test_read_arrays_refuses_all_but_a_dict_of_numbers(tmp_path, content, protocol):
    with pytest.raises(DataError):
        read_arrays(save(tmp_path / "a.pt", content, protocol=protocol))


@containers
@protocols
def test_read_arrays_refuses_a_cut_file(tmp_path, is_zip, protocol):
    path = save(tmp_path / "a.pt", ARRAYS, is_zip=is_zip, protocol=protocol)
    content = path.read_bytes()
    for share in (0, 0.001, 0.3, 0.7):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError):
            read_arrays(path)


def test_read_arrays_refuses_other_files(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(NotFoundError):
        read_arrays(path)
    path.write_text("<html>")
    with pytest.raises(DataError):
        read_arrays(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("papers.csv", "id\n")
    with pytest.raises(DataError):
        read_arrays(path)


def test_read_arrays_without_torch_names_the_package(tmp_path, monkeypatch):
    path = save(tmp_path / "a.pt", ARRAYS)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match="torch is not installed"):
        read_arrays(path)
