"""Trainings by two workers as torchrun starts them, and what the launcher makes of their end."""

import os
import signal
import sys

import pytest
import torch
from ranked_by_hand import hard_mrr
from two_workers import MINUTES, events

from citeflow import files
from citeflow.errors import (
    CiteflowError,
    ConfigError,
    CorruptError,
    NotFoundError,
    StoppedError,
    TrainingError,
    error_to_dict,
)
from citeflow.evaluation import metrics
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import PaperRows, build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.paths import RunPaths
from citeflow.tasks.citation_training import build_model
from citeflow.training import launch
from citeflow.training.launch import make_job, read_error, read_job, train_locally, write_job

STEPS, VALIDATIONS = 48, 6


@pytest.fixture(scope="module")
def graph(prepared):
    return PreparedGraph.open(prepared.graph)


def valid_mrr(predictor, graph):
    structural = build_structural_features(graph, predictor.config)
    rows = PaperRows(embed_all(predictor, graph), structural)
    score = torch.from_numpy(score_held_out(predictor, rows, graph.valid))
    return metrics.mrr_and_hits(metrics.rank_positives(score[:, 0], score[:, 1:]))["mrr"]


@pytest.mark.fault("F6")
def test_train_locally_stopped_by_a_signal_exits_with_143(stopped):
    assert stopped.exit_code == StoppedError.exit_code
    stop = f"error: training was asked to stop: step {stopped.steps_done}\nhint: run it again\n"
    assert stopped.log.endswith(stop)
    assert "torchrun was stopped signal=SIGTERM" in stopped.log
    assert "Traceback" not in stopped.log
    assert stopped.seconds_to_end < 20
    assert stopped.steps_shown_live[0] == STEPS / VALIDATIONS
    assert stopped.steps_shown_live[-1] <= stopped.steps_done < STEPS
    assert not stopped.left_a_model
    assert stopped.survivors == []


@pytest.mark.fault("F6")
def test_resumed_training_ends_with_the_model_of_an_undisturbed_one(jobs, stopped):
    resumed, whole = jobs["resumed"], jobs["undisturbed"]
    assert resumed.weights == whole.weights
    for key in ("steps", "positives", "epochs"):
        found, expected = (getattr(job.model.details.train, key) for job in (resumed, whole))
        assert found == expected
    found, expected = (
        [entry["valid_mrr"] for entry in job.model.evaluations] for job in (resumed, whole)
    )
    assert found == expected
    assert resumed.model.manifest.inputs == whole.model.manifest.inputs
    leases = [files.read_json(path) for path in sorted(stopped.run.leases.iterdir())]
    assert [lease["step"] for lease in leases] == [0, stopped.steps_done]


def test_resumed_training_has_one_curve(jobs, stopped):
    assert events(stopped.run.logs, "valid/mrr") == [8, 16, 24, 32, 40, 48]
    steps = events(stopped.run.logs, "train/loss")
    assert steps == sorted(set(steps))
    assert steps == [entry["step"] for entry in jobs["resumed"].model.history]


@pytest.mark.parametrize("name", ["resumed", "undisturbed", "by time", "whole graph", "few"])
def test_ranks_take_the_same_steps_and_end_with_the_same_weights(jobs, name):
    first, second = jobs[name].ranks
    assert first["step"] > 0
    for key in ("step", "samples", "best_score", "weights"):
        assert first[key] == second[key], key


def test_epoch_covers_what_its_partitions_hold(jobs, graph):
    num_citations = len(graph.references.col_E)
    single = jobs["whole graph"].model.details.train
    assert (single.workers, single.steps, single.epochs) == (2, 2 * 2, 2)
    assert single.positives == 2 * num_citations
    several = jobs["undisturbed"].model.details.train
    assert (several.workers, several.steps) == (2, STEPS)
    assert 1 < several.epochs < 6
    assert several.positives == pytest.approx(several.epochs * num_citations)


def test_minutes_end_a_training_by_the_clock_of_rank_0(jobs):
    first, second = jobs["by time"].ranks
    assert 60 * MINUTES <= first["seconds"] < 60 * MINUTES + 6
    assert abs(second["seconds"] - first["seconds"]) < 6


def test_shared_validation_equals_that_of_one_process(jobs, graph):
    model = jobs["undisturbed"].model
    found = model.details.valid_mrr
    assert found == pytest.approx(valid_mrr(model.model, graph), rel=1e-6)
    assert found == max(entry["valid_mrr"] for entry in model.evaluations)
    best = max(model.evaluations, key=lambda entry: entry["valid_mrr"])
    assert best["valid_hard_mrr"] == pytest.approx(hard_mrr(model.model, graph), rel=1e-6)
    structural = build_structural_features(graph, model.config.model)
    untrained = build_model(graph, structural, model.config)
    assert found > valid_mrr(untrained, graph) + 0.1


@pytest.mark.fault("F22")
def test_ranks_write_one_event_file_per_start(jobs, stopped):
    assert len(jobs["resumed"].ranks) == 2
    assert len([path for path in stopped.run.logs.iterdir() if path.is_file()]) == 2
    for rank in range(2):
        folder = stopped.run.logs / f"rank-{rank}"
        assert len(list(folder.iterdir())) == 2
        steps = events(folder, "resources/cpu_cores")
        assert steps == sorted(steps)
        assert steps[-1] == STEPS


@pytest.mark.parametrize("name", ["resumed", "undisturbed", "by time"])
def test_model_holds_what_both_ranks_used(jobs, name):
    model = jobs[name].model
    ranks = model.resources.ranks
    assert [rank.rank for rank in ranks] == [0, 1]
    for rank in ranks:
        assert len(rank.cpu_cores) == len(model.resources.seconds)
        assert 0 < max(rank.cpu_cores) < 3
        assert 1e8 < max(rank.memory_bytes) < 1e10
    told = model.details.train
    assert 0.05 < told.cpu_cores < 4
    highest = [max(rank.memory_bytes) for rank in ranks]
    assert max(highest) < told.peak_memory_bytes <= sum(highest)
    cost = model.manifest.facts["stages"]["train"]
    assert cost["cpu_seconds"] > told.cpu_cores * told.seconds * 0.5
    assert cost["seconds"] > told.seconds if name != "resumed" else cost["seconds"] > 0


@pytest.fixture
def stand_in(monkeypatch):
    """Let a few lines of Python take the place of torchrun."""

    def replace(code):
        monkeypatch.setattr(launch, "torchrun_command", lambda _: [sys.executable, "-c", code])

    return replace


@pytest.fixture
def start(prepared, tmp_path):
    """Trains in `tmp_path`."""
    run = RunPaths(tmp_path, "run")
    return lambda: train_locally(prepared.graph, run, config=prepared.config, workers=2)


def test_train_locally_raises_the_error_of_a_worker_once(start, stand_in, tmp_path):
    stand_in("import sys; sys.exit(3)")
    with pytest.raises(TrainingError, match="3"):
        start()
    error = error_to_dict(ConfigError("wrong", "lr"))
    file = RunPaths(tmp_path, "run").error_file
    stand_in(f"import json; json.dump({error}, open({str(file)!r}, 'w'))")
    with pytest.raises(ConfigError, match="wrong: lr"):
        start()
    stand_in("")
    start()
    assert read_error(file) is None


@pytest.mark.parametrize(
    "last_words", ["time.sleep(60)", "signal.signal(15, lambda *_: sys.exit(1)); time.sleep(60)"]
)
def test_train_locally_stopped_before_a_step_is_a_stop(start, stand_in, last_words):
    stop = f"import os, signal, sys, threading, time; stop = lambda: os.kill({os.getpid()}, 15)\n"
    stand_in(f"{stop}threading.Timer(0.1, stop).start(); {last_words}")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError) as caught:
        start()
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_train_locally_shares_the_threads(start, stand_in, tmp_path, monkeypatch):
    file = tmp_path / "threads"
    stand_in(f"import os; open({str(file)!r}, 'w').write(os.environ['OMP_NUM_THREADS'])")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    start()
    assert file.read_text() == "4"


def test_torchrun_runs_no_code_of_the_working_folder(tmp_path, monkeypatch):
    """A file of a module's name in the folder of somebody's data is data."""
    for name in ("torch.py", "citeflow.py", "docker/__init__.py", "json.py"):
        files.write_text(tmp_path / name, f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    command = launch.torchrun_command(1)
    probe = "import json, citeflow, torch"
    check = [
        *command[: command.index("-m")],
        "-c",
        f"import os, subprocess, sys\n{probe}\ntry:\n    import docker\nexcept ImportError:\n"
        f"    pass\nsubprocess.run([sys.executable, '-c', {probe!r}], env=os.environ, check=True)",
    ]
    environment = {**os.environ, **launch.worker_environment(os.environ, 1)}
    code, _ = launch.run_workers(check, environment, RunPaths(tmp_path, "run"))
    assert code == 0
    assert not (tmp_path / "executed").exists()


def test_train_locally_ends_at_once_where_workers_cannot_connect(start, monkeypatch):
    def unreachable(address, timeout):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(CiteflowError, match=r"127\.0\.0\.1: Network is unreachable"):
        start()


@pytest.mark.fault("F14")
@pytest.mark.parametrize("is_out_of_memory", [True, False])
def test_train_locally_says_what_a_killed_training_needs(
    start, stand_in, monkeypatch, capfd, is_out_of_memory
):
    counted = iter([2, 2 + is_out_of_memory])
    monkeypatch.setattr(launch, "oom_kills", lambda: next(counted))
    monkeypatch.setattr(launch, "memory_limit", lambda: 300 * 2**20)
    stand_in("import os; os.kill(os.getpid(), 9)")
    reason = r"out of memory: limit 300 MiB, needs about \d+ MiB"
    match = reason if is_out_of_memory else "exit code: -9"
    with pytest.raises(TrainingError, match=match) as caught:
        start()
    assert ("train.nodes_per_batch" in caught.value.hint) is is_out_of_memory


@pytest.mark.fault("F14")
@pytest.mark.parametrize(("mib", "warns"), [(300, True), (300_000, False)])
def test_check_memory_budget_warns_of_too_little(prepared, tmp_path, capfd, mib, warns):
    job = make_job(prepared.graph, RunPaths(tmp_path, "run"), prepared.config)
    launch.check_memory_budget(job, 2, mib * 2**20)
    told = capfd.readouterr().err
    assert ("may run out of memory advice=limit" in told) == warns


def test_job_file_comes_back_with_a_launch_of_its_own(prepared, tmp_path):
    job = make_job(prepared.graph, RunPaths(tmp_path, "experiment/1"), prepared.config)
    written = []
    for _ in range(2):
        write_job(job)
        written.append(read_job(job.paths.job_file))
    assert written[0].launch != written[1].launch
    assert {each.sha256 for each in written} == {job.sha256}
    assert written[0].launched_at <= written[1].launched_at
    assert written[0].model_copy(update={"launch": "", "launched_at": 0.0}) == job
    assert job.recovery == prepared.config.recovery


@pytest.mark.parametrize("text", ["[]", "{}", '{"data": 1, "config": {}}', "nonsense"])
def test_read_job_names_a_file_that_is_no_job(tmp_path, text):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(CorruptError, match=r"job\.json"):
        read_job(tmp_path / "job.json")
    with pytest.raises(NotFoundError):
        read_job(tmp_path / "none.json")
