"""The files of one's own model: what is taken, under which name, and what is refused."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from citeflow import config, files, own_model
from citeflow.errors import ConfigError, CorruptError, NotFoundError
from citeflow.tasks import load_settings

CODE = "def build(settings):\n    return None\n"


def settings_of(name, value, task="citation"):
    return config.changed(load_settings(task), {"model": {name: str(value)}})


def safetensors_of(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(first, last, count=1):
    return {"dtype": "F32", "shape": [count], "data_offsets": [first, last]}


WEIGHTS = {
    "pickled": pickle.dumps({"weight": [1.0]}),
    "a zip, as torch.save writes it": b"PK\x03\x04" + bytes(64),
    "empty": b"",
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "header beyond the file": struct.pack("<Q", 1000) + b"{}",
    "not JSON": safetensors_of(b"[[[[["),
    "deep JSON": safetensors_of(b"[" * 100_000),
    "overlapping": safetensors_of({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)),
    "a hole": safetensors_of({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
    "offsets beyond the file": safetensors_of({"a": entry(0, 400, 100)}, bytes(4)),
    "offsets backwards": safetensors_of({"a": entry(4, 0)}, bytes(4)),
    "shape of another size": safetensors_of({"a": entry(0, 4, 1 << 60)}, bytes(4)),
    "unknown type": safetensors_of({"a": {**entry(0, 4), "dtype": "PY"}}, bytes(4)),
}


@pytest.mark.parametrize("content", WEIGHTS.values(), ids=WEIGHTS)
def test_bring_refuses_hostile_weights(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.weights is no safetensors file") as caught:
        own_model.bring(settings_of("weights", tmp_path / "model.safetensors"), tmp_path / "data")
    assert len(str(caught.value).splitlines()) == 2
    assert not (tmp_path / "data").exists()


def make_link(path):
    (path.parent / "real.py").write_text(CODE)
    path.symlink_to("real.py")


FILES = {
    "a symbolic link": (make_link, "no plain file"),
    "a folder": (lambda path: path.mkdir(), "no plain file"),
    "a pipe": (os.mkfifo, "no plain file"),
    "not UTF-8": (lambda path: path.write_bytes(b"x = '\xff'"), "no text in UTF-8"),
    "with a NUL": (lambda path: path.write_bytes(b"x = 1\0"), "no Python code"),
    "empty": (lambda path: path.write_bytes(b" \n"), "no Python code"),
    "too large": (lambda path: path.write_bytes(b"#" * (2 << 20)), "too large"),
    "missing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize(("make", "expected"), FILES.values(), ids=FILES)
def test_bring_refuses_what_is_no_file_of_code(tmp_path, make, expected):
    make(tmp_path / "model.py")
    with pytest.raises((ConfigError, NotFoundError), match=expected):
        own_model.bring(settings_of("code", tmp_path / "model.py"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("task", ["citation", "images"])
def test_bring_keeps_a_file_under_its_digest(tmp_path, task):
    (tmp_path / "model.py").write_text(CODE)
    brought = own_model.bring(settings_of("code", tmp_path / "model.py", task), tmp_path)
    digest = files.sha256_of_file(tmp_path / "model.py")
    assert own_model.names(brought) == {"code": digest}
    assert own_model.settle(brought, tmp_path) == brought
    assert own_model.open_files(brought, tmp_path).read_code() == CODE
    assert own_model.has_code(brought)


def test_bring_leaves_settings_without_files_alone(tmp_path):
    plain = load_settings()
    assert own_model.bring(plain, tmp_path) is plain
    assert own_model.open_files(plain, tmp_path) == own_model.NO_FILES


@pytest.mark.parametrize("value", ["../secret.py", "/etc/passwd", "link/secret.py", "a\0b"])
def test_settle_lets_no_path_lead_out_of_the_volume(tmp_path, value):
    (tmp_path / "secret.py").write_text(CODE)
    root = tmp_path / "data"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="leads out of the volume"):
        own_model.settle(settings_of("code", value), root)


def test_settle_takes_a_file_of_the_volume(tmp_path):
    (tmp_path / "model.py").write_text(CODE)
    settled = own_model.settle(settings_of("code", "model.py"), tmp_path)
    assert own_model.open_files(settled, tmp_path).read_code() == CODE
    with pytest.raises(NotFoundError, match="not on the volume"):
        own_model.settle(settled, tmp_path / "elsewhere")


def test_open_files_refuses_a_changed_file(tmp_path):
    (tmp_path / "model.py").write_text(CODE)
    settled = own_model.settle(settings_of("code", "model.py"), tmp_path)
    own_model.open_files(settled, tmp_path).code.write_text("changed")
    with pytest.raises(CorruptError, match="not the file that the run was started with"):
        own_model.open_files(settled, tmp_path)


def test_decisive_follows_the_content_of_a_file(tmp_path):
    digests = set()
    for text in (CODE, CODE + "# changed\n"):
        (tmp_path / "model.py").write_text(text)
        digests.add(own_model.decisive(own_model.settle(settings_of("code", "model.py"), tmp_path)))
    digests.add(own_model.decisive(load_settings()))
    assert len(digests) == 3


def test_decisive_is_that_of_earlier_versions_where_later_settings_change_nothing():
    plain = load_settings()
    values = plain.model_dump(include={"model", "train"})
    del values["model"]["code"], values["model"]["weights"], values["train"]["precision"]
    assert own_model.decisive(plain) == files.sha256_of_json(values)


def test_decisive_follows_the_precision():
    other = load_settings(overrides=["train.precision=bfloat16"])
    assert own_model.decisive(other) != own_model.decisive(load_settings())


def test_bring_takes_weights(tmp_path):
    content = save({"a": np.zeros(3, np.float32)})
    (tmp_path / "w.safetensors").write_bytes(content)
    brought = own_model.bring(settings_of("weights", tmp_path / "w.safetensors"), tmp_path)
    assert own_model.open_files(brought, tmp_path).weights.read_bytes() == content
    assert not own_model.has_code(brought)
