import json
import os
import shutil
import sys

import pytest

from citeflow import files, local_runs
from citeflow.cli.main import main
from citeflow.errors import ConfigError, NotFoundError, StoppedError, UnavailableError
from citeflow.local_runs import LocalRuns, recorded
from citeflow.paths import RunPaths


@pytest.fixture
def root(tmp_path, trained):
    """A data root with a run that has a report."""
    paths = RunPaths(tmp_path, "first")
    shutil.copytree(trained.run_dir, paths.folder)
    paths.logs.mkdir(parents=True)
    return tmp_path


def end(root, name, error):
    """Record a run that ends with an error."""
    with pytest.raises(type(error)), recorded(RunPaths(root, name), "hepth"):
        raise error


def states(root, **options):
    chosen = {"experiment": "", "limit": 20, "archived": False, **options}
    return {run["name"]: run["state"] for run in LocalRuns(root).list(**chosen)}


def test_recorded_run_is_listed_with_how_it_ended(root):
    with recorded(RunPaths(root, "good"), "hepth"):
        assert states(root)["good"] == "RUNNING"
    end(root, "bad", ConfigError("train.lr", -1))
    end(root, "halted", StoppedError("stopped by a signal", "SIGTERM"))
    # A run that was killed cannot say so: it is not running, as nobody holds its lock.
    killed = RunPaths(root, "killed")
    shutil.copytree(RunPaths(root, "halted").folder, killed.folder)
    status = files.read_json(killed.status_file)
    files.write_json(killed.status_file, {**status, "state": "RUNNING", "finished": None})
    (root / "runs" / "study" / "t1" / "report").mkdir(parents=True)
    (root / "runs" / "study" / "run.json").write_text("{")
    (root / "runs" / "no-run").mkdir()
    (root / "runs" / "unreadable" / "run.json").mkdir(parents=True)
    assert states(root) == {
        "first": "SUCCEEDED",
        "good": "SUCCEEDED",
        "bad": "FAILED",
        "halted": "STOPPED",
        "killed": "STOPPED",
        "study": "INCOMPLETE",
        "unreadable": "INCOMPLETE",
    }
    end(root, "ctrl-c", KeyboardInterrupt())
    assert "stopped by a signal: SIGINT" in LocalRuns(root).show("ctrl-c")["error"]
    assert states(root, experiment="study") == {"study/t1": "INCOMPLETE"}
    assert len(states(root, limit=1)) == 1
    assert "train.lr: -1" in LocalRuns(root).show("bad")["error"]


def test_runs_are_listed_by_the_moment_they_were_created_at(root):
    times = {
        "later": "2026-03-01T09:30:00-05:00",
        "earlier": "2026-03-01T14:00:00.500000Z",
        "earliest": "2026-03-01T23:00:00+09:00",
    }
    for name, created in times.items():
        file = RunPaths(root, name).status_file
        file.parent.mkdir()
        status = {"dataset": "d", "state": "FAILED", "created": created, "finished": None}
        file.write_text(json.dumps({**status, "error": ""}))
    (root / "runs" / "first").rename(root / "first")
    assert list(states(root)) == ["later", "earlier", "earliest"]
    assert list(states(root, limit=1)) == ["later"]


def test_recorded_refuses_a_second_pipeline_of_the_name_and_keeps_its_first_start(root):
    paths = RunPaths(root, "twice")
    with recorded(paths, "hepth"):
        created = LocalRuns(root).show("twice")["created"]
        with pytest.raises(UnavailableError), recorded(paths, "hepth"):
            pass
    LocalRuns(root).archive("twice", undo=False)
    with recorded(paths, "hepth"):
        again = LocalRuns(root).show("twice")
        assert (again["created"], again["archived"]) == (created, False)


def test_local_run_is_shown_archived_and_deleted(root, capsys):
    def call(*argv):
        code = main(["runs", *argv, "--local", "--data-root", str(root)])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    # The folders of a run are none: to archive its model would write into it.
    for command in ("show", "archive", "rm"):
        assert call(command, "first/model")[0] == NotFoundError.exit_code
    _, (shown,) = call("show", "first")
    assert shown["score"] == {"test_mrr": shown["test"]["mrr"]}
    assert shown["config"]["train"]["epochs"] == 6
    assert call("rm", "first")[0] == ConfigError.exit_code
    assert call("archive", "first")[0] == 0
    assert call("list") == (0, [])
    assert [run["name"] for run in call("list", "--archived")[1]] == ["first"]
    assert call("archive", "first", "--undo")[0] == call("archive", "first")[0] == 0
    with files.exclusive(RunPaths(root, "first").lock_file):
        assert call("rm", "first")[0] == UnavailableError.exit_code
    assert call("rm", "first")[0] == 0
    assert not RunPaths(root, "first").folder.exists()
    for name in ("first", "../runs", ".", "a/../b"):
        assert call("show", name)[0] == NotFoundError.exit_code


def test_output_of_a_run_is_kept_beside_it(root, capsys):
    run = RunPaths(root, "kept")
    for line in ("first start", "second start \N{BULLET}"):
        with local_runs.recorded(run, "synthetic"), local_runs.output_kept(run):
            print(line, file=sys.stderr)
    print("after it", file=sys.stderr)
    assert capsys.readouterr().err.splitlines()[-1] == "after it"
    kept = run.output_file.read_text().splitlines()
    assert kept == ["first start", "second start \N{BULLET}"]


def test_output_of_a_run_on_the_platform_is_kept_by_it_alone(root, monkeypatch):
    run = RunPaths(root, "once")
    run.folder.mkdir(parents=True)
    monkeypatch.setenv(local_runs.KEPT_VARIABLE, "1")
    with local_runs.output_kept(run):
        print("a line", file=sys.stderr)
    assert not run.output_file.exists()


@pytest.mark.parametrize("trap", ["link", "pipe"])
def test_output_is_appended_to_nothing_that_code_has_put_there(root, tmp_path, capsys, trap):
    run = RunPaths(root, "trap")
    run.folder.mkdir(parents=True)
    other = tmp_path / "other"
    other.write_text("")
    if trap == "link":
        run.output_file.symlink_to(other)
    else:
        os.mkfifo(run.output_file)
    with local_runs.output_kept(run):
        print("a line", file=sys.stderr)
    assert other.read_text() == ""
    assert capsys.readouterr().err == "a line\n"


@pytest.mark.fault("F46")
def test_delete_waits_for_the_experiment_and_for_its_trials(root):
    study, trial, runs = RunPaths(root, "study"), RunPaths(root, "study/t1"), LocalRuns(root)
    for run in (study, trial):
        with recorded(run, "hepth"):
            pass
        runs.archive(run.name, undo=False)
    # The pipeline of an experiment reads all trials at its end.
    with files.exclusive(study.pipeline_lock), pytest.raises(UnavailableError):
        runs.delete("study/t1")
    # Where it is killed, the training of a trial needs some time to end.
    with files.exclusive(trial.lock_file):
        with pytest.raises(UnavailableError):
            runs.delete("study")
        assert runs.show("study")["state"] == "RUNNING"
    assert runs.show("study")["state"] == "SUCCEEDED"
    assert trial.folder.is_dir()
    runs.delete("study/t1")
    runs.delete("study")
    assert not study.folder.exists()


def test_size_is_told_of_a_run_whose_files_come_and_go(root, monkeypatch):
    gone = root / "runs" / "first" / "gone"
    gone.write_text("")
    lstat = type(gone).lstat

    def vanishing(path):
        if path == gone:
            raise FileNotFoundError(path)
        return lstat(path)

    monkeypatch.setattr(type(gone), "lstat", vanishing)
    assert LocalRuns(root).show("first")["bytes"] > 0
