"""Row F35: files that were made to do harm are refused, and nothing in them is executed.

Each payload would leave a folder named canary, or read a file outside of its own folder.
"""

import ast
import gzip
import importlib.metadata
import json
import os
import pickle
import shutil
import struct
import tomllib

import numpy as np
import pytest
import torch
from data.ogb_archive import write_ogb, zip_folder

from citeflow import config, files
from citeflow.data.datasets import download_dataset
from citeflow.errors import CiteflowError
from citeflow.evaluation import trained_model
from citeflow.evaluation.predict import predict
from citeflow.evaluation.queries import QueryPaper
from citeflow.files.manifests import FileEntry
from citeflow.graph.preparation import prepare
from citeflow.graph.prepared import PreparedGraph

DEEP = "[" * 100_000
pytestmark = pytest.mark.fault("F35")

SMALL = config.load(overrides=["data.eval_negatives=5"])


class Payload:
    """An object whose pickle makes the canary when it is loaded."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    """The path that only a payload would create."""
    return tmp_path / "canary"


@pytest.fixture
def refused(canary):
    """Require an error of citeflow's, and no canary."""

    def check(function, *arguments, **options):
        with pytest.raises(CiteflowError) as caught:
            function(*arguments, **options)
        assert not canary.exists()
        assert len(str(caught.value)) < 1000
        return caught.value

    return check


def ask(model, data_root):
    return list(predict(model, [QueryPaper(paper="p1")], data_root=data_root))


@pytest.fixture
def model(trained, tmp_path):
    """A copy of a model that works."""
    shutil.copytree(trained.model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def graph(trained, tmp_path):
    """A copy of a graph that works."""
    shutil.copytree(trained.graph, tmp_path / "prepared/graph")
    return tmp_path / "prepared/graph"


def sign_again(folder, kind):
    """Write the manifest again, as somebody who changed a file on purpose would."""
    manifest = files.read_json(folder / "manifest.json")
    files.write_manifest(folder, kind, inputs=manifest["inputs"], facts=manifest["facts"])


def save_hostile(path, content, **options):
    torch.save(content, path, **options)
    assert b"mkdir" in path.read_bytes()


def test_payload_does_harm_where_it_is_loaded(canary):
    pickle.loads(pickle.dumps(Payload(canary)))
    assert canary.is_dir()


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_pickle_in_a_split_file_of_ogb(is_zip, protocol, part, tmp_path, canary, refused):
    write_ogb(tmp_path / "set")
    hostile = {"source_node": Payload(canary), "target_node": np.arange(3)}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": is_zip}
    save_hostile(tmp_path / "set" / "split" / "time" / f"{part}.pt", hostile, **options)
    source = zip_folder(tmp_path / "set", tmp_path / "set.zip")
    raw = download_dataset(str(source), data_root=tmp_path / "root", config=SMALL)
    refused(prepare, raw, data_root=tmp_path / "root", config=SMALL.data)


def test_object_array_as_features(tmp_path, canary, refused):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "papers.csv").write_text("id\n" + "".join(f"{row}\n" for row in range(9)))
    (folder / "citations.csv").write_text(
        "citing,cited\n" + "".join(f"{row},0\n" for row in range(1, 9))
    )
    np.save(
        folder / "features.npy", np.array([[Payload(canary)]] * 9, dtype=object), allow_pickle=True
    )
    raw = download_dataset(str(folder), data_root=tmp_path / "root", config=SMALL)
    refused(prepare, raw, data_root=tmp_path / "root", config=SMALL.data)


@pytest.mark.parametrize(
    "header", ["{'descr': " + "(" * 5000, "{'descr': " + "-" * 60_000 + "1}", "__import__('os')"]
)
def test_header_of_features_that_is_hard_on_the_parser(header, tmp_path, refused):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "papers.csv").write_text("id\n1\n2\n3\n")
    (folder / "citations.csv").write_text("citing,cited\n2,1\n3,1\n3,2\n")
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode()
    (folder / "features.npy").write_bytes(head + bytes(64))
    raw = download_dataset(str(folder), data_root=tmp_path / "root", config=SMALL)
    refused(prepare, raw, data_root=tmp_path / "root", config=SMALL.data)


@pytest.mark.parametrize(
    "name", ["x", "day", "references_ptr", "citations_index", "valid_negative"]
)
def test_object_array_in_a_prepared_graph(name, graph, canary, refused):
    np.save(graph / f"{name}.npy", np.array([Payload(canary)], dtype=object), allow_pickle=True)
    sign_again(graph, "PreparedGraph")
    refused(PreparedGraph.open, graph)


def test_pickle_instead_of_weights(model, canary, refused):
    save_hostile(model / "model.safetensors", {"weight": Payload(canary)})
    refused(trained_model.load, model)
    sign_again(model, "TrainedModel")
    refused(trained_model.load, model)


def header_of(size, text):
    return struct.pack("<Q", size) + text.encode()


def tensor(first, end):
    return json.dumps(
        {"weight": {"dtype": "F32", "shape": [(end - first) // 4], "data_offsets": [first, end]}}
    )


@pytest.mark.parametrize(
    "content",
    [
        header_of(1 << 62, "{}"),
        header_of(99_000_000, "{}"),
        header_of(len(tensor(0, 1 << 40)), tensor(0, 1 << 40)) + bytes(8),
        header_of(len(tensor(-8, 8)), tensor(-8, 8)) + bytes(8),
        header_of(len(DEEP), DEEP),
        header_of(2, "{}"),
        b"",
    ],
    ids=[
        "huge header",
        "large header",
        "offset outside",
        "negative offset",
        "deep JSON",
        "no tensors",
        "nothing",
    ],
)
def test_weights_with_a_wrong_header(content, model, trained, refused):
    (model / "model.safetensors").write_bytes(content)
    sign_again(model, "TrainedModel")
    refused(trained_model.load, model)
    refused(ask, model, trained.data_root)


@pytest.mark.parametrize("name", ["model.json", "manifest.json"])
@pytest.mark.parametrize(
    "content", [DEEP, '{"a":' * 100_000, "null", "\xff"], ids=["lists", "dicts", "null", "no text"]
)
def test_json_that_is_deep_or_of_another_type(name, content, model, trained, refused):
    (model / name).write_bytes(content.encode("latin1"))
    if name != "manifest.json":
        sign_again(model, "TrainedModel")
    refused(ask, model, trained.data_root)


@pytest.mark.parametrize("name", ["../outside", "{root}/outside", "in/../../outside", "link"])
def test_manifest_that_names_a_file_outside(name, model, refused):
    outside = model.parent / "outside"
    outside.write_text("secret")
    (model / "link").symlink_to(outside)
    manifest = files.read_manifest(model, "TrainedModel")
    entry = FileEntry(bytes=6, sha256=files.sha256_of_file(outside))
    entries = {**manifest.files, name.format(root=model.parent): entry}
    hostile = manifest.model_copy(update={"files": entries})
    signed = hostile.model_copy(update={"sha256": hostile.digest})
    files.write_json(model / "manifest.json", signed.model_dump())
    refused(trained_model.load, model)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_link_instead_of_a_file(name, model, refused):
    content = (model / name).read_bytes()
    (model.parent / "outside").write_bytes(content)
    (model / name).unlink()
    (model / name).symlink_to(model.parent / "outside")
    refused(trained_model.load, model)


@pytest.mark.parametrize(
    "note", ['{"raw": "../../../outside", "sha256": "0"}', '{"raw": "/etc"}', DEEP, "[]", "null"]
)
def test_note_of_a_download_is_not_trusted(note, tmp_path, canary):
    url, root = zip_folder_of_papers(tmp_path).as_uri(), tmp_path / "root"
    raw = download_dataset(url, data_root=root, config=SMALL)
    (place,) = root.glob("raw/.downloads/*/note.json")
    place.write_text(note)
    shutil.copytree(raw, tmp_path / "outside")
    assert download_dataset(url, data_root=root, config=SMALL) == raw


def zip_folder_of_papers(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "papers.csv").write_text("id\n1\n2\n3\n")
    (folder / "citations.csv").write_text("citing,cited\n2,1\n3,1\n3,2\n")
    return zip_folder(folder, tmp_path / "set.zip")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [{canary}]",
        "train: !!python/object/new:os.mkdir [{canary}]",
        "!!python/name:os.system",
        "train: {{lr: !!python/module:os}}",
        "[" * 3000,
    ],
)
def test_settings_that_name_python(text, tmp_path, canary, refused):
    (tmp_path / "settings.yaml").write_text(text.format(canary=canary))
    refused(config.load, file=tmp_path / "settings.yaml")
    refused(config.from_yaml, text.format(canary=canary))


@pytest.mark.parametrize("name", ["papers.parquet", "papers.csv.gz"])
@pytest.mark.parametrize("kind", ["pickle", "thrift", "bomb"])
def test_hostile_table(name, kind, tmp_path, canary, refused):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "citations.csv").write_text("citing,cited\n2,1\n")
    content = {
        "pickle": pickle.dumps(Payload(canary)),
        "thrift": b"PAR1" + b"\x15\x7f" * 500 + struct.pack("<I", 0x7FFFFFFF) + b"PAR1",
        "bomb": gzip.compress(b"id\n" + b'"' * (64 << 20), compresslevel=1),
    }[kind]
    (folder / name).write_bytes(content)

    def both():
        raw = download_dataset(str(folder), data_root=tmp_path / "root", config=SMALL)
        prepare(raw, data_root=tmp_path / "root", config=SMALL.data)

    refused(both)


ALLOWED = {
    ("src/citeflow/data/safe_pickle.py", "import pickle"),
    ("src/citeflow/data/safe_pickle.py", "torch.load"),
    ("src/citeflow/models/own.py", "compile"),
    ("src/citeflow/models/own.py", "exec"),
}
"""The only module that reads a pickle, with a list of the few names that it may hold; and the one
that runs a model of one's own, in the workers of its training alone."""

RUNS = {"eval", "exec", "compile", "__import__"}
UNSAFE = {
    *(
        "torch.load",
        "torch.jit.load",
        "torch.package",
        "os.system",
        "os.popen",
        "joblib.load",
        "pandas.read_pickle",
    ),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "subprocess.getoutput"),
}
PICKLES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def found_in(path):
    """Yield the calls and imports of a module that could execute what it reads."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                f"import {name.name}"
                for name in node.names
                if name.name.partition(".")[0] in PICKLES
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
            yield f"import {node.module}"
        elif isinstance(node, ast.Call):
            yield from found_in_call(ast.unparse(node.func), node.keywords)


def found_in_call(name, keywords):
    if name in RUNS | UNSAFE:
        yield name
    for keyword in keywords:
        is_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ("shell", "allow_pickle") and not is_false:
            yield f"{keyword.arg}=True"


def test_no_module_can_execute_what_it_reads(checkout):
    paths = [
        path
        for top in ("src", "components", "pipelines")
        for path in sorted((checkout / top).rglob("*.py"))
    ]
    found = {(str(path.relative_to(checkout)), what) for path in paths for what in found_in(path)}
    assert found == ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "os.system(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "subprocess.run(text, shell=True)",
        "torch.load(path)",
    ],
)
def test_calls_that_execute_are_found(line, tmp_path):
    (tmp_path / "module.py").write_text(f"def function():\n    {line}\n")
    assert len(list(found_in(tmp_path / "module.py"))) == 1


def test_torch_that_reads_split_files_is_new_enough(checkout):
    """`weights_only` had holes before 2.6 and 2.10."""
    minor = tuple(int(part) for part in importlib.metadata.version("torch").split(".")[:2])
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    (wanted,) = (
        line for line in project["optional-dependencies"]["train"] if line.startswith("torch=")
    )
    pinned = tuple(
        int(part) for part in wanted.removeprefix("torch==").removesuffix(".*").split(".")
    )
    assert minor >= pinned >= (2, 10)
