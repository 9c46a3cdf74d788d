"""What a stage begins with was deleted, cut or swapped since it was made, as a cached step's result may be."""

import shutil
import time
from types import SimpleNamespace

import pytest

from citeflow import config, files, stages, steps
from citeflow.cli.main import main

LIMIT_S = 1.0
NOUNS = {
    "RawDataset": "raw",
    "PreparedGraph": "graph",
    "TrainedModel": "model",
    "EvalReport": "report",
}

pytestmark = pytest.mark.fault("F32")


def delete(place, other):
    shutil.rmtree(place)


def unlist(place, other):
    (place / files.MANIFEST).unlink()


def lose_a_file(place, other):
    largest(place).unlink()


def cut_a_file(place, other):
    content = largest(place).read_bytes()
    largest(place).write_bytes(content[:-1])


def swap(place, other):
    """Put a noun of another kind there."""
    shutil.rmtree(place)
    shutil.copytree(other, place)


def make_anew(place, other):
    """Put another noun of the same kind there, as another run of the same name does."""
    kind = files.read_json(place / files.MANIFEST)["kind"]
    (place / files.MANIFEST).unlink()
    largest(place).write_bytes(b"of another run")
    files.write_manifest(place, kind, inputs={}, facts={})


DAMAGES = [delete, unlist, lose_a_file, cut_a_file, swap, make_anew]


def largest(place):
    names = [
        path for path in sorted(place.rglob("*")) if path.is_file() and path.name != files.MANIFEST
    ]
    return max(names, key=lambda path: path.stat().st_size)


@pytest.fixture
def root(trained, tmp_path):
    """A copy of all that the five stages made, which may be damaged."""
    shutil.copytree(trained.data_root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def places(trained, root):
    """Where each noun lies in the copy."""
    (raw,) = [path.parent for path in (trained.data_root / "raw").glob(f"*/{files.MANIFEST}")]
    found = {"raw": raw, "graph": trained.graph, "model": trained.model, "report": trained.report}
    return {name: root / place.relative_to(trained.data_root) for name, place in found.items()}


@pytest.fixture
def artifacts(places, root):
    """The artifacts of a run whose steps were taken from the cache."""
    made = {}
    for kind, name in NOUNS.items():
        metadata = {"location": str(places[name].relative_to(root)), "kind": kind}
        metadata["sha256"] = files.read_manifest(places[name], kind).sha256
        made[name] = SimpleNamespace(path=str(root / "artifacts" / name), metadata=metadata)
    return made


def preprocess(artifacts, root):
    raw = artifacts["raw"]
    steps.preprocess(raw, raw.metadata["sha256"], "", data_root=str(root), graph=empty(root))


def train(artifacts, root):
    settings = config.to_yaml(config.load())
    told = {"data_root": str(root), "model": empty(root), "metrics": empty(root)}
    steps.train(artifacts["graph"], settings, 2, "again", "1234", "local", "", **told)


def evaluate(artifacts, root):
    model = artifacts["model"]
    told = {name: empty(root) for name in ("report", "metrics", "classification")}
    steps.evaluate(model, model.metadata["sha256"], artifacts["graph"], data_root=str(root), **told)


def publish(artifacts, root):
    report = artifacts["report"]
    told = {"data_root": str(root), "summary": empty(root), "page": empty(root)}
    steps.publish(report, report.metadata["sha256"], artifacts["model"], "", **told)


def empty(root):
    return SimpleNamespace(path=str(root / "artifacts" / "new"), metadata={})


INPUTS = [
    (preprocess, "raw"),
    (train, "graph"),
    (evaluate, "model"),
    (evaluate, "graph"),
    (publish, "report"),
]
INPUTS += [(publish, "model")]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("step", "noun"), INPUTS)
def test_a_step_of_a_pipeline_says_at_once_that_its_input_is_gone(
    artifacts, places, root, monkeypatch, capsys, step, noun, damage
):
    begun = []
    monkeypatch.setattr(stages, step.__name__, lambda *_, **__: begun.append(step))
    other = places["report" if noun == "raw" else "raw"]
    damage(places[noun], other)
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        step(artifacts, root)
    wasted = time.monotonic() - began
    told = capsys.readouterr().err
    assert ended.value.code in (66, 74)
    assert begun == []
    assert wasted < LIMIT_S
    assert str(places[noun]) in told
    assert "caching off" in told.splitlines()[-1]


@pytest.mark.parametrize(("step", "noun"), INPUTS)
def test_undamaged_the_same_call_begins(artifacts, root, monkeypatch, step, noun):
    def begin(*_, **__):
        raise BegunError

    monkeypatch.setattr(stages, step.__name__, begin)
    with pytest.raises(BegunError):
        step(artifacts, root)


class BegunError(Exception):
    """The work has begun."""


@pytest.mark.parametrize(
    "metadata", [{}, {"location": ""}, {"location": "/etc"}, {"location": "raw/../../x"}]
)
def test_an_artifact_of_something_else_is_refused(artifacts, root, capsys, metadata):
    artifacts["raw"].metadata = {"sha256": artifacts["raw"].metadata["sha256"], **metadata}
    with pytest.raises(SystemExit) as ended:
        preprocess(artifacts, root)
    assert ended.value.code == 74
    assert "not an artifact of a RawDataset" in capsys.readouterr().err


COMMANDS = {
    "preprocess": ("raw", ["preprocess", "{raw}"]),
    "train": ("graph", ["train", "{graph}", "--run-name", "again"]),
    "evaluate": ("model", ["evaluate", "{model}", "--graph", "{graph}"]),
    "evaluate with": ("graph", ["evaluate", "{model}", "--graph", "{graph}"]),
    "publish": ("report", ["publish", "{report}", "--model", "{model}", "--out", "{root}/out"]),
    "publish with": ("model", ["publish", "{report}", "--model", "{model}", "--out", "{root}/out"]),
    "predict": ("model", ["predict", "--run", "{model}", "--paper", "{paper}"]),
    "predict with": ("graph", ["predict", "--run", "{model}", "--paper", "{paper}"]),
}


@pytest.mark.parametrize("damage", [delete, unlist, lose_a_file, cut_a_file, swap])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_at_once_that_its_input_is_gone(
    trained, places, root, capsys, command, damage
):
    noun, words = COMMANDS[command]
    damage(places[noun], places["report" if noun == "raw" else "raw"])
    words = [word.format(**places, root=root, paper=trained.missing[0]) for word in words]
    with_root = [] if words[0] == "evaluate" else ["--data-root", str(root)]
    before = contents(root)
    began = time.monotonic()
    code = main([*words, *with_root])
    wasted = time.monotonic() - began
    told = capsys.readouterr()
    assert code in (66, 74)
    assert wasted < LIMIT_S
    assert told.out == ""
    error, hint = told.err[told.err.index("error: ") :].partition("\n")[::2]
    assert str(root) in error
    assert hint.startswith("hint: ")
    assert contents(root) == before


def contents(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
