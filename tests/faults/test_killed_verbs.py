"""A verb that was killed leaves nothing or all of its result, and the next run makes the same bytes.

Death comes by SIGKILL just before any of the changes that the verb makes to the disk, one process per death.
"""

import random
import shutil

import pytest

from citeflow import files
from faults import killing

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
DEATHS = 20
VERBS = list(NEEDS)


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A data root in which every verb has run undisturbed; and how many changes each of them made."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(trained.data_root / "papers", root / "papers")
    shutil.copytree(trained.model, root / "runs/small/model")
    (root / "settings").write_text("\n".join(trained.settings))
    changes = {name: killing.alive(name, root) for name in VERBS}
    return root, changes


def place(whole, name, root):
    """A new data root with what a verb needs, and nothing of what it makes."""
    root.mkdir(parents=True)
    for needed in ("settings", *NEEDS[name]):
        copy = shutil.copytree if (whole / needed).is_dir() else shutil.copyfile
        (root / needed).parent.mkdir(parents=True, exist_ok=True)
        copy(whole / needed, root / needed)
    return root


def results(name, root):
    """All that a verb leaves to be looked at, by digest."""
    folders = [root / RESULTS[name], *([root / "logs"] if name == "publish" else [])]
    return killing.contents(*folders)


def require_nothing_half(name, root):
    """Each folder under a name that somebody would look for is complete."""
    folder = root / RESULTS[name]
    if name == "publish":
        found = [(folder / "model", "TrainedModel")]
    else:
        nouns = [folder] if name == "evaluate" else folder.glob("[!.]*")
        found = [(noun, KINDS[name]) for noun in nouns]
    there = [(noun, kind) for noun, kind in found if noun.exists()]
    for noun, kind in there:
        files.verify(noun, kind)
    return bool(there)


def die_and_run_again(whole, name, root, dies_at, figure):
    source, _ = whole
    place(source, name, root)
    assert killing.killed(name, root, dies_at)
    complete = require_nothing_half(name, root)
    killing.alive(name, root)
    same = results(name, root) == results(name, source)
    figure(kills=1, already_complete=int(complete), half_products=0, identical=int(same))
    assert same
    shutil.rmtree(root)


@pytest.mark.fault("F25")
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_killed_at_one_of_its_changes_makes_the_same_when_it_runs_again(
    name, whole, tmp_path, figure
):
    changes = whole[1][name]
    assert changes > DEATHS / 2
    for dies_at in random.Random(name).sample(
        range(1, changes + 1), DEATHS if name == "preprocess" else 3
    ):
        die_and_run_again(whole, name, tmp_path / str(dies_at), dies_at, figure)


@pytest.mark.fault("F25", nightly=True)
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_killed_at_each_of_its_changes_makes_the_same_when_it_runs_again(
    name, whole, tmp_path, figure
):
    for dies_at in range(1, whole[1][name] + 1):
        die_and_run_again(whole, name, tmp_path / str(dies_at), dies_at, figure)


@pytest.mark.fault("F25")
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_ran_already_changes_no_byte(name, whole, tmp_path, figure):
    root = place(whole[0], name, tmp_path / "root")
    for _ in range(2):
        killing.alive(name, root)
        same = results(name, root) == results(name, whole[0])
        figure(runs=1, identical=int(same))
        assert same


@pytest.mark.fault("F25")
@pytest.mark.parametrize("name", ["download", "preprocess"])
def test_two_at_once_on_one_data_root_make_one_result(name, whole, tmp_path, figure):
    root = place(whole[0], name, tmp_path / "root")
    for _ in range(3):
        shutil.rmtree(root / RESULTS[name], ignore_errors=True)
        assert killing.two_at_once(name, root) == [0, 0]
    same = results(name, root) == results(name, whole[0])
    figure(pairs=3, identical=int(same))
    assert same
    assert [
        path.name for path in (root / RESULTS[name]).iterdir() if path.name.startswith(".")
    ] == []
