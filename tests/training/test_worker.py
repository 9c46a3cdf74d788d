"""A worker: its arguments, what it resumes from, and what it leaves when it ends."""

import errno
import os
import signal

import pytest
from single_rank import single_rank_environment
from toy_task import ToyTask

from citeflow import config, files
from citeflow.errors import ConfigError
from citeflow.paths import RunPaths
from citeflow.tasks import TASKS
from citeflow.training import worker
from citeflow.training.launch import WorkerJob, write_job
from citeflow.training.preemption import LOST_PEER, PeerLost
from citeflow.training.worker import report_errors


@pytest.fixture
def toy(monkeypatch):
    task = ToyTask()
    monkeypatch.setitem(TASKS, "toy", task)
    return task


@pytest.fixture
def main(toy, tmp_path, signal_handlers):
    """Runs a worker of the toy task, alone; returns what it has saved."""

    def run(**train):
        settings = {"train": {"epochs": 0.25, **train}, "recovery": {"checkpoint_steps": 2}}
        job = WorkerJob(task="toy", data=tmp_path, data_root=tmp_path, run="r", config=settings)
        write_job(job)
        with single_rank_environment():
            worker.main([str(job.paths.job_file)])
        return toy.opened.saved

    return run


def test_main_trains_any_task_of_the_registry(main, tmp_path, capfd):
    folder, result = main()
    assert folder == RunPaths(tmp_path, "r").model
    assert (result.summary.steps, result.summary.workers) == (4, 1)
    assert result.progress.evaluations[-1]["step"] == 4
    assert result.inputs == {"workers": 1}
    assert result.resources.cost.cpu_seconds > 0
    told = capfd.readouterr().err
    assert "may run out of memory" in told
    assert "starting step=0 attempt=1 workers=1" in told


def test_main_resumes_a_training_whose_model_was_not_written(main, capfd):
    main()
    _, result = main()
    assert "resuming step=4 attempt=2" in capfd.readouterr().err
    assert result.summary.steps == 4


def test_main_leaves_a_finished_training_alone(main, tmp_path, capfd):
    run = RunPaths(tmp_path, "r")
    with files.new_directory(run.model) as work:
        files.write_manifest(work, "TrainedModel", inputs={"workers": 1}, facts={})
    assert main() is None
    assert "already done" in capfd.readouterr().err
    assert not run.leases.exists()


def test_main_refuses_a_run_of_other_workers(main, toy, tmp_path):
    main()
    checkpoints = RunPaths(tmp_path, "r").checkpoints
    for path in checkpoints.iterdir():
        files.write_manifest(
            path, "Checkpoint", inputs={"workers": 3}, facts={"step": int(path.name[5:])}
        )
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == ConfigError.exit_code
    error = files.read_json(RunPaths(tmp_path, "r").error_file)
    assert error["value"] == "workers 3, now 1"


def test_main_reports_a_job_that_it_cannot_read(tmp_path, signal_handlers):
    with pytest.raises(SystemExit) as caught:
        worker.main([str(tmp_path / "job.json")])
    assert caught.value.code == 66
    assert files.read_json(tmp_path / "error.json")["what"] == "no such file"


def test_arguments_describe_a_job_without_a_file(tmp_path):
    args = ["--graph", "/graph", "--data-root", str(tmp_path), "--set", "train.lr=0.5"]
    run = RunPaths(tmp_path, "experiment/trial")
    job = worker.parse_job([str(run.job_file), *args])
    assert (job.paths, str(job.data), job.task) == (run, "/graph", "citation")
    assert config.from_dict(job.config).train.lr == 0.5


def ended(error, folder):
    with pytest.raises(SystemExit) as caught, report_errors(folder / "error.json"):
        raise error
    return caught.value.code


@pytest.mark.fault("F17")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_report_errors_gives_up_on_a_lasting_disk_failure(tmp_path, signal_handlers, number):
    assert ended(OSError(number, os.strerror(number), "model"), tmp_path) == 70
    assert files.read_json(tmp_path / "error.json")["what"] == os.strerror(number)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, os.strerror(errno.EIO), "x"), RuntimeError("a bug")]
)
def test_report_errors_lets_torchrun_try_again_after_others(tmp_path, signal_handlers, error):
    with pytest.raises(type(error)), report_errors(tmp_path / "error.json"):
        raise error
    assert not (tmp_path / "error.json").exists()


def test_report_errors_survives_a_full_disk(tmp_path, signal_handlers, monkeypatch, capsys):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(worker.files, "write_json", full)
    assert ended(ConfigError("wrong", "lr"), tmp_path) == 64
    assert "error=wrong value=lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told", "exit_code"),
    [
        (RuntimeError("[gloo/pair.cc:1] Closed by peer\nmore"), "lost another worker", LOST_PEER),
        (PeerLost(LOST_PEER), "lost another worker", LOST_PEER),
        (worker.LeaseLost("attempt 2 has taken over"), "leaves the run to another", 1),
    ],
)
def test_report_errors_logs_one_line_where_others_go_on(
    tmp_path, signal_handlers, capsys, error, told, exit_code
):
    assert ended(error, tmp_path) == exit_code
    captured = capsys.readouterr().err
    assert told in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "error.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
