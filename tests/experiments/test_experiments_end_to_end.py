"""One small run of each experiment, from the command line, on one prepared graph."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from citeflow import config, files
from citeflow.cli.main import main
from citeflow.experiments import study
from citeflow.paths import RunPaths
from citeflow.tasks import load_settings

SMALL = (
    "synthetic.num_papers=300",
    "data.eval_negatives=20",
    "data.holdout=0.2",
    "model.hidden_channels=8",
    "train.nodes_per_batch=150",
    "train.epochs=1",
    "train.num_validations=1",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def options(root):
    settings = [part for each in SMALL for part in ("--set", each)]
    return ["--data-root", str(root), *settings]


def rows_of(table):
    return list(csv.DictReader(Path(table).read_text().splitlines()))


def test_scaling_leaves_a_table_a_page_and_runs_for_tensorboard(root, options, capsys):
    command = ["scaling", "--workers", "1,2", "--epochs", "1", "--run-name", "small-scaling"]
    assert main([*command, *options]) == 0
    made = json.loads(capsys.readouterr().out)
    rows = rows_of(made["table"])
    assert [(row["workers"], row["epochs"]) for row in rows] == [("1", "1.0"), ("2", "1.0")]
    assert all(float(row["seconds"]) > 0 and 0 < float(row["test_mrr"]) <= 1 for row in rows)
    assert Path(made["page"]).read_text().count("<svg") == 4
    logs = root / "logs" / "small-scaling"
    assert {path.name for path in logs.iterdir()} == {"m-1-w-0-e-1", "m-1-w-1-e-1"}
    assert all(list(path.glob("events.*")) for path in logs.iterdir())
    assert (root / "runs/small-scaling/m-1-w-1-e-1/published/report.html").is_file()


def test_compare_names_a_winner(root, options, capsys):
    models = "{wide: {}, narrow: {model: {hidden_channels: 2, predictor: dot}}}"
    command = ["compare", "--models", models, "--seeds", "3", "--workers", "1"]
    assert main([*command, "--run-name", "small-comparison", *options]) == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    rows = rows_of(made["table"])
    assert {(row["model"], row["seed"]) for row in rows} == {("narrow", "3"), ("wide", "3")}
    assert "has the highest validation MRR" in err
    assert Path(made["page"]).read_text().count("<svg") == 3


def test_tune_leaves_the_best_model_and_its_settings(root, options, capsys):
    command = ["tune", "--trials", "2", "--parallel", "2", "--run-name", "small-search"]
    options = [*options, "--set", "evaluation.protocol=hard"]
    space = "{train.lr: {low: 0.01, high: 0.02}}"
    assert main([*command, "--space", space, *options]) == 0
    made = json.loads(capsys.readouterr().out)
    out = root / "runs" / "small-search" / "published"
    names = [
        "best.yaml",
        "model",
        "report.html",
        "report.json",
        "trials.csv",
        "tuning.html",
        "tuning.json",
    ]
    assert set(names) <= set(files.names_in(out))
    trials = study.read_trials(RunPaths(root, "small-search"), 2)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    options_of_best = made["options"].replace("--set ", "").split()
    best = config.load(file=out / "best.yaml")
    assert config.load(overrides=options_of_best).train.lr == best.train.lr
    assert "default settings" in made["verdict"]
    assert "validation MRR among hard papers" in made["verdict"]
    assert (made["protocol"], best.evaluation.protocol) == ("hard", "hard")
    assert set(made["test_mrr_by_protocol"]) == {"ogb", "all", "hard", "cold"}


@pytest.fixture(scope="module")
def image_options(root):
    settings = ("model.channels=4", "model.hidden=8", "train.epochs=1", "train.num_validations=1")
    shared = ["--task", "images", "--dataset", "digits", "--data-root", str(root)]
    return [*shared, *(part for each in settings for part in ("--set", each))]


def test_scaling_of_images_has_their_accuracy(root, image_options, capsys):
    command = ["scaling", "--workers", "1", "--epochs", "1", "--run-name", "image-scaling"]
    assert main([*command, *image_options]) == 0
    made = json.loads(capsys.readouterr().out)
    (row,) = rows_of(made["table"])
    assert 0 < float(row["test_accuracy"]) <= 1
    assert 0 < float(row["macro_f1"]) <= 1
    page = Path(made["page"]).read_text()
    assert "Test accuracy" in page
    assert "MRR" not in page


def test_tune_of_images_searches_their_settings(root, image_options, capsys):
    command = ["tune", "--trials", "2", "--run-name", "image-search", *image_options]
    space = "{model.architecture: [plain, resnet], train.lr: {low: 0.001, high: 0.01}}"
    assert main([*command, "--space", space]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["test"]["accuracy"] > 0.1
    assert "validation accuracy" in made["verdict"]
    assert "--set model.architecture=" in made["options"]
    out = root / "runs" / "image-search" / "published"
    assert load_settings(file=out / "best.yaml").task == "images"
    page = (out / "tuning.html").read_text()
    assert "Validation accuracy by trial" in page
    assert "MRR" not in page
    assert rows_of(out / "trials.csv")[0]["valid_accuracy"]


def test_scaling_that_is_stopped_ends_at_once(root, options):
    command = [
        sys.executable,
        "-m",
        "citeflow",
        "scaling",
        "--workers",
        "1",
        "--epochs",
        "1,2000,3000",
    ]
    process = subprocess.Popen(
        [*command, "--run-name", "stopped", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    runs = root / "runs" / "stopped"
    deadline = time.monotonic() + 300
    while not list((runs / "m-1-w-0-e-2000" / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "--run-name stopped" in messages
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert not (runs / "m-1-w-0-e-3000").exists()
    assert (runs / "m-1-w-0-e-1" / "model" / "manifest.json").is_file()


def test_scaling_ends_with_the_error_of_a_training(root, options, capsys):
    command = ["scaling", "--workers", "1", "--epochs", "1,2", "--run-name", "failing", *options]
    assert main([*command, "--set", "train.lr=1e18", "--set", "train.max_grad_norm=0"]) == 75
    assert "not finite" in capsys.readouterr().err
    assert not (root / "runs" / "failing" / "m-1-w-0-e-2").exists()
