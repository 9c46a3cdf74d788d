"""Row F25: a stage that was killed leaves nothing or all of its artifact, and the next run makes
the same bytes."""

import random
import shutil
import signal

import pytest

from citeflow import files
from faults.killed_stage import contents, started

KINDS = {"download": "RawDataset", "preprocess": "PreparedGraph", "evaluate": "EvalReport"}
RESULTS = {
    "download": "raw",
    "preprocess": "prepared",
    "evaluate": "runs/small/report",
    "publish": "out",
}
NEEDS = {
    "download": ["papers"],
    "preprocess": ["raw"],
    "evaluate": ["prepared", "runs/small/model"],
    "publish": ["runs/small/model", "runs/small/report"],
}
STAGES = list(NEEDS)


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A data root in which every stage has run, and the number of changes that each has made."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(trained.data_root / "papers", root / "papers")
    shutil.copytree(trained.model, root / "runs/small/model")
    (root / "settings").write_text("\n".join(trained.settings))
    changes = {}
    for stage in STAGES:
        codes, changes[stage] = started(stage, root)
        assert codes == [0]
    return root, changes


def prepare_root(whole, stage, root):
    """Copy what a stage needs, and nothing of what it makes, to a new data root."""
    root.mkdir(parents=True)
    for needed in ("settings", *NEEDS[stage]):
        copy = shutil.copytree if (whole / needed).is_dir() else shutil.copyfile
        (root / needed).parent.mkdir(parents=True, exist_ok=True)
        copy(whole / needed, root / needed)
    return root


def results(stage, root):
    """Return the digests of all files that a stage leaves."""
    return contents(root / RESULTS[stage], *([root / "logs"] if stage == "publish" else []))


def require_nothing_half(stage, root):
    """Verify each artifact that has its name."""
    folder = root / RESULTS[stage]
    if stage == "publish":
        found = [(folder / "model", "TrainedModel")]
    elif stage == "evaluate":
        found = [(folder, "EvalReport")]
    else:
        found = [(artifact, KINDS[stage]) for artifact in folder.glob("[!.]*")]
    for artifact, kind in found:
        if artifact.exists():
            files.verify(artifact, kind)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "deaths",
    [
        pytest.param(5, marks=pytest.mark.fault("F25")),
        pytest.param(None, marks=pytest.mark.fault("F25", nightly=True), id="each change"),
    ],
)
def test_stage_killed_at_a_change_makes_the_same_when_it_runs_again(stage, deaths, whole, tmp_path):
    source, changes = whole
    turns = range(1, changes[stage] + 1)
    for dies_at in turns if deaths is None else random.Random(stage).sample(turns, deaths):
        root = prepare_root(source, stage, tmp_path / str(dies_at))
        assert started(stage, root, dies_at)[0] == [-signal.SIGKILL]
        require_nothing_half(stage, root)
        assert started(stage, root)[0] == [0]
        assert results(stage, root) == results(stage, source)
        shutil.rmtree(root)


@pytest.mark.fault("F25")
@pytest.mark.parametrize("stage", STAGES)
def test_second_run_of_a_stage_changes_no_byte(stage, whole, tmp_path):
    root = prepare_root(whole[0], stage, tmp_path / "root")
    for _ in range(2):
        assert started(stage, root)[0] == [0]
        assert results(stage, root) == results(stage, whole[0])


@pytest.mark.fault("F25")
@pytest.mark.parametrize("stage", ["download", "preprocess"])
def test_two_at_once_on_one_data_root_make_one_artifact(stage, whole, tmp_path):
    root = prepare_root(whole[0], stage, tmp_path / "root")
    for _ in range(2):
        shutil.rmtree(root / RESULTS[stage], ignore_errors=True)
        assert started(stage, root, number=2)[0] == [0, 0]
    assert results(stage, root) == results(stage, whole[0])
    names = [path.name for path in (root / RESULTS[stage]).iterdir()]
    assert [name for name in names if name.startswith(".")] == []
