"""Row F32: the input of a stage was deleted, cut or swapped, as a cached result may be."""

import os
import shutil
import time
from types import SimpleNamespace

import pytest

from citeflow import config, files, stages
from citeflow.cli.main import main
from citeflow.evaluation import evaluator
from citeflow.graph import preparation
from citeflow.reporting import publish as publishing
from citeflow.training import launch

LIMIT_S = 1.0
KINDS = {
    "RawDataset": "raw",
    "PreparedGraph": "graph",
    "TrainedModel": "model",
    "EvalReport": "report",
}

pytestmark = pytest.mark.fault("F32")


def delete(artifact, other):
    shutil.rmtree(artifact)


def delete_manifest(artifact, other):
    (artifact / files.MANIFEST).unlink()


def lose_a_file(artifact, other):
    largest(artifact).unlink()


def cut_a_file(artifact, other):
    content = largest(artifact).read_bytes()
    largest(artifact).write_bytes(content[:-1])


def swap(artifact, other):
    """Replace it by an artifact of another kind."""
    shutil.rmtree(artifact)
    shutil.copytree(other, artifact)


def overwrite(artifact, other):
    """Replace it by one of the same kind, as another run of the same name does."""
    kind = files.read_json(artifact / files.MANIFEST)["kind"]
    (artifact / files.MANIFEST).unlink()
    largest(artifact).write_bytes(b"of another run")
    files.write_manifest(artifact, kind, inputs={}, facts={})


DAMAGES = [delete, delete_manifest, lose_a_file, cut_a_file, swap, overwrite]


def largest(artifact):
    paths = [path for path in sorted(artifact.rglob("*")) if path.is_file()]
    return max((path for path in paths if path.name != files.MANIFEST), key=os.path.getsize)


@pytest.fixture
def root(trained, tmp_path):
    """A copy of all that the five stages made."""
    shutil.copytree(trained.data_root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def paths(trained, root):
    """The artifacts in the copy, by name."""
    (raw,) = [path.parent for path in (trained.data_root / "raw").glob(f"*/{files.MANIFEST}")]
    found = {"raw": raw, "graph": trained.graph, "model": trained.model, "report": trained.report}
    return {name: root / path.relative_to(trained.data_root) for name, path in found.items()}


@pytest.fixture
def artifacts(paths, root):
    """The KFP artifacts of a run whose stages were cached."""
    made = {}
    for kind, name in KINDS.items():
        metadata = {"location": str(paths[name].relative_to(root)), "kind": kind}
        metadata["sha256"] = files.read_manifest(paths[name], kind).sha256
        made[name] = SimpleNamespace(path=str(root / "artifacts" / name), metadata=metadata)
    return made


def preprocess(artifacts, root):
    raw = artifacts["raw"]
    stages.preprocess(raw, raw.metadata["sha256"], "", data_root=str(root), graph=empty(root))


def train(artifacts, root):
    settings = config.to_yaml(config.load())
    outputs = {"data_root": str(root), "model": empty(root), "metrics": empty(root)}
    stages.train(artifacts["graph"], settings, 2, "again", "1234", "local", "", **outputs)


def evaluate(artifacts, root):
    model = artifacts["model"]
    outputs = {name: empty(root) for name in ("report", "metrics", "classification")}
    stages.evaluate(
        model, model.metadata["sha256"], artifacts["graph"], data_root=str(root), **outputs
    )


def publish(artifacts, root):
    report = artifacts["report"]
    outputs = {"data_root": str(root), "summary": empty(root), "page": empty(root)}
    stages.publish(report, report.metadata["sha256"], artifacts["model"], "", **outputs)


def empty(root):
    return SimpleNamespace(path=str(root / "artifacts" / "new"), metadata={})


INPUTS = [
    (preprocess, "raw"),
    (train, "graph"),
    (evaluate, "model"),
    (evaluate, "graph"),
    (publish, "report"),
    (publish, "model"),
]
WORK = {
    preprocess: (preparation, "prepare"),
    train: (launch, "train_locally"),
    evaluate: (evaluator, "evaluate"),
    publish: (publishing, "publish"),
}
"""The function that does the work of each stage."""


@pytest.fixture
def started(monkeypatch):
    """Names of the functions whose work has started; it does nothing."""
    started = []

    def note(name):
        def work(*_, **__):
            started.append(name)
            raise StartedError

        return work

    for module, name in WORK.values():
        monkeypatch.setattr(module, name, note(name))
    return started


class StartedError(Exception):
    """The work has started."""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("stage", "name"), INPUTS)
def test_stage_reports_a_lost_input_at_once(
    artifacts, paths, root, started, capsys, stage, name, damage
):
    other = paths["report" if name == "raw" else "raw"]
    damage(paths[name], other)
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        stage(artifacts, root)
    wasted = time.monotonic() - began
    err = capsys.readouterr().err
    assert ended.value.code in (66, 74)
    assert started == []
    assert wasted < LIMIT_S
    assert str(paths[name]) in err
    assert "caching off" in err.splitlines()[-1]


@pytest.mark.parametrize("stage", WORK)
def test_stage_starts_with_undamaged_inputs(artifacts, root, started, stage):
    with pytest.raises(StartedError):
        stage(artifacts, root)
    assert started == [WORK[stage][1]]


@pytest.mark.parametrize(
    "metadata", [{}, {"location": ""}, {"location": "/etc"}, {"location": "raw/../../x"}]
)
def test_kfp_artifact_of_something_else_is_refused(artifacts, root, capsys, metadata):
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
    "predict": ("model", ["predict", "{model}", "--paper", "{paper}"]),
    "predict with": ("graph", ["predict", "{model}", "--paper", "{paper}"]),
}


@pytest.mark.parametrize("damage", [delete, delete_manifest, lose_a_file, cut_a_file, swap])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_reports_a_lost_input_at_once(trained, paths, root, capsys, command, damage):
    name, words = COMMANDS[command]
    damage(paths[name], paths["report" if name == "raw" else "raw"])
    words = [word.format(**paths, root=root, paper=trained.missing[0]) for word in words]
    with_root = [] if words[0] == "evaluate" else ["--data-root", str(root)]
    before = contents(root)
    began = time.monotonic()
    code = main([*words, *with_root])
    wasted = time.monotonic() - began
    output = capsys.readouterr()
    assert code in (66, 74)
    assert wasted < LIMIT_S
    assert output.out == ""
    error, hint = output.err[output.err.index("error: ") :].partition("\n")[::2]
    assert str(root) in error
    assert hint.startswith("hint: ")
    assert contents(root) == before


def contents(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
