"""What a rank tells of its resources, and that nothing of it can end a training."""

import errno
import os

import pytest

from citeflow.reporting import event_files
from citeflow.training import resources
from citeflow.training.checkpoint import Progress
from citeflow.training.prometheus import OF_TRAINING
from citeflow.training.resources import Watch
from citeflow.utils.usage import Source


def trained(group, log_dir, step=0):
    """What a block leaves in which nothing is trained."""
    with Watch(group, "r", log_dir, step=step) as watched:
        with watched.fitting(Progress(step=step)):
            sum(range(200_000))
        return watched.gathered()


def scalars(folder, tag="resources/memory_gib"):
    return [
        entry.step
        for path in sorted(folder.iterdir())
        for entry in event_files.read_scalars(path, tag)
    ]


def test_facts_cost_and_series_come_from_one_watch(group, tmp_path):
    seen = trained(group, tmp_path)
    assert 0 < seen.train["cpu_cores"] < 2
    assert seen.train["peak_memory_bytes"] > 1e7
    assert seen.cost["cpu_seconds"] > 0
    assert [rank["rank"] for rank in seen.series["ranks"]] == [0]
    assert scalars(tmp_path / "rank-0") == [0]


def test_a_resumed_training_takes_back_the_samples_after_its_checkpoint(group, tmp_path):
    trained(group, tmp_path)
    trained(group, tmp_path, step=7)
    first, second = sorted((tmp_path / "rank-0").iterdir())
    assert (event_files.first_step(first), event_files.first_step(second)) == (0, 7)


def test_a_training_that_begins_afresh_forgets_ranks_that_it_has_not(group, tmp_path):
    for name in ("rank-1", "rank-12", "rank-x", "else"):
        (tmp_path / name).mkdir()
    trained(group, tmp_path, step=7)
    assert (tmp_path / "rank-1").exists()
    trained(group, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"rank-0", "rank-x", "else"}


def test_a_folder_that_cannot_be_written_costs_the_curve_alone(group, tmp_path, capsys):
    (tmp_path / "rank-0").touch()
    seen = trained(group, tmp_path)
    assert seen.train["peak_memory_bytes"] > 1e7
    assert "shows no resources in TensorBoard" in capsys.readouterr().err


def test_a_disk_that_fills_up_costs_the_rest_of_the_curve_alone(
    group, tmp_path, monkeypatch, capsys
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(resources.ResourceLog, "add", full)
    seen = trained(group, tmp_path)
    assert seen.train["peak_memory_bytes"] > 1e7
    assert (
        capsys.readouterr().err.count(
            "shows no more resources in TensorBoard step=0 why=No space left"
        )
        == 1
    )


def test_a_source_that_is_gone_costs_the_samples_alone(group, tmp_path, monkeypatch, capsys):
    def gone(_):
        raise FileNotFoundError("memory.current")

    monkeypatch.setattr(Source, "read", gone)
    seen = trained(group, tmp_path)
    assert set(seen.train) == {"cpu_cores"}
    assert seen.series["ranks"][0]["memory_bytes"] == [None]
    assert capsys.readouterr().err.count("samples resources no more") == 1


@pytest.mark.parametrize("progress", [None, Progress()])
def test_what_is_not_known_yet_is_not_served(group, tmp_path, progress):
    watched = Watch(group, "r", tmp_path, step=0)
    watched._progress = progress
    assert set(watched._facts()) <= {"citeflow_train_step", "citeflow_train_citations_total"}


def test_every_figure_of_a_training_is_served_once_it_is_known(group, tmp_path):
    watched = Watch(group, "r", tmp_path, step=0)
    watched._progress = Progress(
        step=3, positives=9, history=[{"loss": 0.5}], evaluations=[{"valid_mrr": 0.25}]
    )
    assert set(watched._facts()) == set(OF_TRAINING)
    assert watched._facts()["citeflow_train_valid_mrr"] == 0.25
