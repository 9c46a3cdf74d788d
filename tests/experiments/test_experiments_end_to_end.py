import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from citeflow.cli import main

SMALL = {
    "synthetic": {"papers": 600},
    "train": {"epochs": 1, "evaluations": 2, "papers": 300},
    "model": {"width": 8},
}


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Options of a small experiment, and its data root."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return [
        "--config",
        str(folder / "small.yaml"),
        "--data-root",
        str(folder / "data"),
    ], folder / "data"


def test_a_sweep_leaves_a_table_a_page_and_runs_for_tensorboard(common, capsys):
    options, root = common
    assert (
        main(["sweep", "--workers", "1,3", "--epochs", "2", "--run-name", "small-sweep", *options])
        == 0
    )
    out, told = capsys.readouterr()
    made = json.loads(out)
    rows = list(csv.DictReader(Path(made["table"]).read_text().splitlines()))
    assert [(row["workers"], row["epochs"]) for row in rows] == [("1", "2.0"), ("3", "2.0")]
    assert all(float(row["seconds"]) > 0 and 0 < float(row["mrr"]) <= 1 for row in rows)
    assert all(
        float(row["cpu_cores"]) > 0 and float(row["peak_memory_bytes"]) > 1e7 for row in rows
    )
    assert float(rows[0]["speed_up"]) == 1
    assert Path(made["page"]).read_text().count("<svg") == 4
    logs = root / "logs" / "small-sweep"
    assert {path.name for path in logs.iterdir()} == {"m-1-w-0-e-2", "m-1-w-2-e-2"}
    assert all(list(path.glob("events.*")) for path in logs.iterdir())
    assert (root / "runs" / "small-sweep" / "m-1-w-2-e-2" / "published" / "report.html").is_file()
    if os.cpu_count() < 3:
        assert "has more workers than cores" in told
        assert "More workers than cores" in told


def test_a_comparison_names_a_winner(common, capsys):
    options, root = common
    models = "{wide: {}, narrow: {model: {hidden_channels: 2, predictor: dot}}}"
    given = ["--models", models, "--seeds", "3", "--workers", "1", "--run-name", "small-comparison"]
    assert main(["compare", *given, *options]) == 0
    out, told = capsys.readouterr()
    made = json.loads(out)
    rows = list(csv.DictReader(Path(made["table"]).read_text().splitlines()))
    assert {(row["model"], row["seed"]) for row in rows} == {("narrow", "3"), ("wide", "3")}
    assert "has the highest validation MRR" in told
    assert Path(made["page"]).read_text().count("<svg") == 3
    report = json.loads(
        (root / "runs/small-comparison/narrow-seed-3/published/report.json").read_text()
    )
    assert report["config"]["model"]["width"] == 2
    assert report["config"]["train"]["seed"] == 3


def test_a_sweep_that_is_stopped_ends_at_once_and_goes_on_where_it_was(common):
    options, root = common
    command = [
        sys.executable,
        "-m",
        "citeflow",
        "sweep",
        "--workers",
        "1",
        "--epochs",
        "1,400,500",
        *options,
    ]
    command += ["--run-name", "stopped", "--set", "synthetic.num_papers=1200"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    second = root / "runs" / "stopped" / "m-1-w-0-e-400" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(second.glob("step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "--run-name stopped" in told
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert not (root / "runs" / "stopped" / "m-1-w-0-e-500").exists()
    assert (root / "runs" / "stopped" / "m-1-w-0-e-1" / "model" / "manifest.json").is_file()


def test_a_run_that_fails_ends_the_whole_sweep_with_its_own_error(common, capsys):
    options, root = common
    given = ["--workers", "1", "--epochs", "1,2", "--run-name", "failing", "--set", "train.lr=1e18"]
    assert main(["sweep", *given, "--set", "train.max_grad_norm=0", *options]) == 75
    assert "not finite" in capsys.readouterr().err
    assert not (root / "runs" / "failing" / "m-1-w-0-e-2").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sweep", "--workers", "1,x"], "not numbers"),
        (["sweep", "--workers", "0"], "workers: 0"),
        (["sweep", "--epochs", "-1"], "epochs: -1"),
        (["compare", "--models", "{a: {}}"], "two models"),
        (["compare", "--models", "missing.yaml"], "no such file"),
        (["compare", "--seeds", "-1"], "seeds"),
    ],
)
def test_a_wrong_option_ends_the_command_before_any_work(arguments, told, tmp_path, capsys):
    assert main([*arguments, "--data-root", str(tmp_path / "data")]) in (64, 66)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
