"""Trainings by two workers, as torchrun starts them; those that can share one start do."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from citeflow import config, files
from citeflow.errors import ConfigError, NotFoundError, StoppedError, TrainingError, error_to_dict
from citeflow.evaluation import metrics, trained_model
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.training import launch, worker
from citeflow.training.distributed import Group

STEPS, EVALUATIONS = 48, 6
MINUTES = 0.03
PATIENCE_S = 120
CITEFLOW = [
    sys.executable,
    "-c",
    "import sys; from citeflow.cli.main import main; sys.exit(main())",
]


def events(log_dir, tag):
    """Steps of a curve, as TensorBoard reads them."""
    if not log_dir.exists():
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in log.Scalars(tag)] if tag in log.Tags()["scalars"] else []


def valid_mrr(predictor, graph):
    structural = build_structural_features(graph, predictor.config)
    score = torch.from_numpy(
        score_held_out(predictor, embed_all(predictor, graph), structural, graph.valid)
    )
    return metrics.mrr_and_hits(score[:, 0], score[:, 1:])["mrr"]


def wait_for(condition, process):
    """Wait until something holds, at most for PATIENCE_S and while a process runs."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def kill_family(process):
    """End a process that a failed test left running, and all below it."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
        process.wait()


@dataclass(frozen=True)
class Job:
    """A job of `ranks.py` and what each rank told of it."""

    run_dir: Path

    @property
    def ranks(self):
        return [json.loads((self.run_dir / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    @property
    def model(self):
        return trained_model.load(self.run_dir / "model")

    @property
    def weights(self):
        return (self.run_dir / "model" / "model.safetensors").read_bytes()


@dataclass(frozen=True)
class Stopped:
    """A training that was stopped, as it was left."""

    run_dir: Path
    log_dir: Path
    exit_code: int
    error: str
    steps_done: int
    steps_shown_live: list[int]
    seconds_to_end: float
    survivors: list[psutil.Process]
    left_a_model: bool


@pytest.fixture(scope="module")
def stopped(prepared, tmp_path_factory):
    """A training whose `citeflow train` got a SIGTERM after the first validation."""
    root = tmp_path_factory.mktemp("stopped")
    run_dir, log_dir = root / "runs" / "r", root / "logs" / "r"
    settings = [argument for override in prepared.settings for argument in ("--set", override)]
    arguments = [
        "train",
        str(prepared.graph),
        "--run-name",
        "r",
        "--workers",
        "2",
        "--data-root",
        str(root),
    ]
    with (root / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*CITEFLOW, *arguments, *settings], stderr=stderr, stdout=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: events(log_dir, "valid/mrr"), process)
            shown, family = (
                events(log_dir, "valid/mrr"),
                psutil.Process(process.pid).children(recursive=True),
            )
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(PATIENCE_S)
            _, survivors = psutil.wait_procs(family, timeout=1)
        finally:
            kill_family(process)
    return Stopped(
        run_dir=run_dir,
        log_dir=log_dir,
        exit_code=exit_code,
        error="\n".join((root / "stderr").read_text().splitlines()[-2:]),
        steps_done=files.verify(max((run_dir / "checkpoints").iterdir()), "Checkpoint")["facts"][
            "step"
        ],
        steps_shown_live=shown,
        seconds_to_end=time.monotonic() - began,
        survivors=survivors,
        left_a_model=(run_dir / "model").exists(),
    )


@pytest.fixture(scope="module")
def jobs(prepared, stopped, tmp_path_factory):
    """Several trainings of the small graph by ranks that start once, the one that was stopped among them."""
    root = tmp_path_factory.mktemp("jobs")
    changes = {
        "undisturbed": [],
        "other seed": ["train.seed=1"],
        "by time": [f"train.minutes={MINUTES}"],
        "whole graph": ["train.nodes_per_batch=400", "train.epochs=2", "train.num_validations=1"],
        "few": ["train.epochs=0.1", "train.num_validations=50"],
    }
    for name, overrides in changes.items():
        settings = config.load(overrides=[*prepared.settings, *overrides])
        job = {
            "graph": str(prepared.graph),
            "log_dir": str(root / "logs" / name),
            "config": settings.to_dict(),
        }
        files.write_json(root / name / "job.json", job)
    found = {"resumed": Job(stopped.run_dir), **{name: Job(root / name) for name in changes}}
    command = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(Path(__file__).with_name("ranks.py")),
    ]
    job_files = [str(job.run_dir / "job.json") for job in found.values()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", *command, *job_files],
        env=environment,
        check=True,
        timeout=2 * PATIENCE_S,
    )
    return found


@pytest.fixture
def handlers():
    """The signal handlers of this process come back."""
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def graph(prepared):
    return PreparedGraph.open(prepared.graph)


@pytest.mark.fault("F6")
def test_a_stopped_training_ends_with_143_and_says_what_to_do(stopped, figure):
    assert stopped.exit_code == StoppedError.exit_code
    assert (
        stopped.error
        == f"error: training was asked to stop: step {stopped.steps_done}\nhint: run it again"
    )
    assert stopped.seconds_to_end < 20
    figure(stops=1, sigterm_to_exit_max_s=round(stopped.seconds_to_end, 1))


def test_a_stopped_training_keeps_what_was_done(stopped):
    assert stopped.steps_shown_live[-1] <= stopped.steps_done < STEPS
    assert not stopped.left_a_model


@pytest.mark.fault("F6")
def test_no_process_outlives_a_stopped_training(stopped, figure):
    assert stopped.survivors == []
    figure(survivors=0)


def test_curves_can_be_read_while_the_training_runs(stopped):
    assert stopped.steps_shown_live[0] == STEPS / EVALUATIONS


@pytest.mark.fault("F6")
def test_a_resumed_training_ends_with_the_very_model_of_an_undisturbed_one(jobs, stopped, figure):
    resumed, whole = jobs["resumed"], jobs["undisturbed"]
    assert resumed.weights == whole.weights
    for key in ("steps", "positives", "epochs"):
        assert resumed.model.details["train"][key] == whole.model.details["train"][key]
    assert [entry["valid_mrr"] for entry in resumed.model.evaluations] == [
        entry["valid_mrr"] for entry in whole.model.evaluations
    ]
    attempts = sorted((stopped.run_dir / "attempts").iterdir())
    assert [files.read_json(path)["step"] for path in attempts] == [0, stopped.steps_done]
    figure(steps_redone=0)


def test_the_curves_of_a_resumed_training_are_one_curve(jobs, stopped):
    assert events(stopped.log_dir, "valid/mrr") == [8, 16, 24, 32, 40, 48]
    steps = events(stopped.log_dir, "train/loss")
    assert steps == sorted(set(steps))
    assert steps == [entry["step"] for entry in jobs["resumed"].model.history]


def test_the_same_settings_and_workers_make_the_same_files(jobs):
    """The resumed training was begun by other processes."""
    resumed, whole = (jobs[name].model.manifest for name in ("resumed", "undisturbed"))
    assert resumed["inputs"] == whole["inputs"]
    assert resumed["files"]["model.safetensors"] == whole["files"]["model.safetensors"]


def test_another_seed_makes_another_model(jobs):
    assert jobs["other seed"].weights != jobs["undisturbed"].weights
    assert jobs["other seed"].model.manifest.inputs != jobs["undisturbed"].model.manifest.inputs


@pytest.mark.parametrize(
    "name", ["resumed", "undisturbed", "other seed", "by time", "whole graph", "few"]
)
def test_all_ranks_take_as_many_steps_and_end_with_the_same_weights(jobs, name):
    first, second = jobs[name].ranks
    assert first["step"] > 0
    for key in ("step", "positives", "best_mrr", "weights"):
        assert first[key] == second[key], key


def test_every_epoch_takes_every_training_citation_once_where_the_graph_is_one_part(jobs, graph):
    told = jobs["whole graph"].model.details["train"]
    assert (told["workers"], told["steps"], told["epochs"]) == (2, 2 * 2, 2)
    assert told["positives"] == 2 * len(graph.references.index_E)


def test_parts_of_the_graph_leave_out_the_citations_between_them(jobs, graph):
    told = jobs["undisturbed"].model.details["train"]
    assert (told["workers"], told["steps"]) == (2, STEPS)
    assert 1 < told["epochs"] < 6
    assert told["positives"] == pytest.approx(told["epochs"] * len(graph.references.index_E))


def test_training_by_time_ends_about_on_time(jobs):
    first, second = jobs["by time"].ranks
    assert 60 * MINUTES <= first["seconds"] < 60 * MINUTES + 6
    assert abs(second["seconds"] - first["seconds"]) < 6, "the first one's clock decides for both"


def test_training_for_less_than_an_epoch_ends_with_a_model(jobs):
    model = jobs["few"].model
    assert 1 <= model.details["train"]["steps"] < STEPS / 3
    assert 1 <= len(model.evaluations) <= model.details["train"]["steps"]


def test_the_validation_that_ranks_share_is_that_of_one_process(jobs, graph):
    model = jobs["undisturbed"].model
    assert model.details["valid_mrr"] == pytest.approx(valid_mrr(model.predictor, graph), rel=1e-6)
    assert model.details["valid_mrr"] == max(entry["valid_mrr"] for entry in model.evaluations)


def test_training_beats_the_untrained_model_and_popularity(jobs, graph):
    model = jobs["undisturbed"].model
    untrained = worker.new_model(
        graph, build_structural_features(graph, model.config.model), model.config
    )
    cited_N = graph.citations.degree_N
    valid = graph.valid
    popularity = metrics.mrr_and_hits(
        torch.from_numpy(cited_N[valid.target_P]), torch.from_numpy(cited_N[valid.negative_PK])
    )
    assert model.details["valid_mrr"] > valid_mrr(untrained, graph) + 0.1
    assert model.details["valid_mrr"] > popularity["mrr"] + 0.1


class Decides(Group):
    """A rank 0 that tells nobody what it decided, and can take no step, as it has not joined the others."""

    def ask_first(self, make):
        return make()


def test_a_finished_training_is_returned_as_it_is(jobs, handlers):
    run_dir = jobs["resumed"].run_dir
    before = {path: path.stat().st_mtime_ns for path in (run_dir / "model").iterdir()}
    worker.work(Decides(0, 2, torch.device("cpu")), run_dir, files.read_json(run_dir / "job.json"))
    assert {path: path.stat().st_mtime_ns for path in (run_dir / "model").iterdir()} == before


@pytest.mark.parametrize(("workers", "lr"), [(3, 0.01), (2, 0.02)])
def test_a_run_that_was_begun_with_other_settings_or_workers_is_refused(
    jobs, handlers, workers, lr
):
    run_dir = jobs["undisturbed"].run_dir
    job = files.read_json(run_dir / "job.json")
    job["config"]["train"]["lr"] = lr
    with pytest.raises(ConfigError, match="other data, settings or workers") as caught:
        worker.work(Decides(0, workers, torch.device("cpu")), run_dir, job)
    assert "another run name" in caught.value.hint


def stand_in(monkeypatch, code):
    """Let a few lines of Python take the place of torchrun."""
    monkeypatch.setattr(launch, "_torchrun", lambda workers: [sys.executable, "-c", code])


def start(prepared, run_dir):
    launch.train_locally(
        prepared.graph, run_dir=run_dir, log_dir=run_dir / "log", config=prepared.config, workers=2
    )


def test_a_worker_that_dies_without_a_word_is_told_by_its_exit_code(
    prepared, tmp_path, monkeypatch
):
    stand_in(monkeypatch, "import sys; sys.exit(3)")
    with pytest.raises(TrainingError, match="3"):
        start(prepared, tmp_path)


def test_the_error_of_a_worker_is_the_error_of_the_training_and_an_old_one_is_forgotten(
    prepared, tmp_path, monkeypatch
):
    record = error_to_dict(ConfigError("wrong", "lr"))
    stand_in(
        monkeypatch,
        f"import json, sys; json.dump({record}, open({str(tmp_path / 'error.json')!r}, 'w'))",
    )
    with pytest.raises(ConfigError, match="wrong: lr"):
        start(prepared, tmp_path)
    stand_in(monkeypatch, "")
    start(prepared, tmp_path)


@pytest.mark.parametrize(
    "last_words", ["time.sleep(60)", "signal.signal(15, lambda *_: sys.exit(1)); time.sleep(60)"]
)
def test_a_stop_before_the_workers_can_save_is_a_stop_nevertheless(
    prepared, tmp_path, monkeypatch, last_words
):
    code = f"import os, signal, sys, threading, time; tell = lambda: os.kill({os.getpid()}, 15)\n"
    stand_in(monkeypatch, f"{code}threading.Timer(0.1, tell).start(); {last_words}")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError) as caught:
        start(prepared, tmp_path)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_threads_are_shared_between_the_workers(prepared, tmp_path, monkeypatch):
    stand_in(
        monkeypatch,
        f"import os; open({str(tmp_path / 'threads')!r}, 'w').write(os.environ['OMP_NUM_THREADS'])",
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    start(prepared, tmp_path)
    assert (tmp_path / "threads").read_text() == "4"


def test_a_graph_that_is_not_there_is_refused_by_the_worker(tmp_path, handlers):
    files.write_json(
        tmp_path / "job.json", {"graph": str(tmp_path / "none"), "log_dir": "", "config": {}}
    )
    with pytest.raises(NotFoundError, match="none"):
        worker.work(None, tmp_path, files.read_json(tmp_path / "job.json"))


@pytest.mark.fault("F14")
def test_a_training_that_the_kernel_killed_for_want_of_memory_says_what_it_needs(
    prepared, tmp_path, monkeypatch, capfd, figure
):
    """The counter of the container stands in for the kernel, and a process that kills itself for a worker."""
    kills = iter([2, 3])
    monkeypatch.setattr(launch, "oom_kills", lambda: next(kills))
    monkeypatch.setattr(launch, "memory_limit", lambda: 300 * 2**20)
    stand_in(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(
        TrainingError, match=r"out of memory: needs about \d+ MiB, limit 300 MiB"
    ) as caught:
        start(prepared, tmp_path)
    assert "train.nodes_per_batch" in caught.value.hint
    assert "may run out of memory advice=" in capfd.readouterr().err
    figure(message_present=1)


@pytest.mark.fault("F14")
def test_a_training_that_fits_is_not_warned_and_not_blamed(prepared, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(launch, "oom_kills", lambda: 2)
    stand_in(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(TrainingError, match="exit code: -9"):
        start(prepared, tmp_path)
    assert "memory" not in capfd.readouterr().err


@pytest.mark.fault("F22")
def test_rank_0_writes_one_file_of_events_for_each_start_and_each_rank_one_of_its_own(
    jobs, stopped, figure
):
    assert len(jobs["resumed"].ranks) == 2
    assert len([path for path in stopped.log_dir.iterdir() if path.is_file()]) == 2
    for rank in range(2):
        assert len(list((stopped.log_dir / f"rank-{rank}").iterdir())) == 2
    figure(starts=2, files=2)


@pytest.mark.parametrize("name", ["resumed", "undisturbed", "by time"])
def test_the_model_tells_what_both_ranks_used_over_time(jobs, name):
    model = jobs[name].model
    first, second = model.resources["ranks"]
    assert (first["rank"], second["rank"]) == (0, 1)
    for rank in (first, second):
        assert len(rank["cpu_cores"]) == len(model.resources["seconds"])
        assert 0 < max(rank["cpu_cores"]) < 3
        assert 1e8 < max(rank["memory_bytes"]) < 1e10
    told = model.details["train"]
    assert 0.05 < told["cpu_cores"] < 4
    highest = [max(rank["memory_bytes"]) for rank in (first, second)]
    assert max(highest) < told["peak_memory_bytes"] <= sum(highest)
    assert model.manifest.facts["cpu_seconds"] > told["cpu_cores"] * told["seconds"] * 0.5


def test_each_rank_shows_what_it_uses_as_a_run_of_its_own(stopped, jobs):
    for rank in range(2):
        steps = events(stopped.log_dir / f"rank-{rank}", "resources/cpu_cores")
        assert steps == sorted(steps)
        assert steps[-1] == STEPS
        assert len(events(stopped.log_dir / f"rank-{rank}", "resources/memory_gib")) == len(steps)
    assert events(stopped.log_dir, "resources/cpu_cores") == []
