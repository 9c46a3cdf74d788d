from types import SimpleNamespace

import pytest
from outcomes import report

from citeflow import config, files
from citeflow.artifacts import PREPARED_GRAPH, LocalArtifact
from citeflow.cli.main import main
from citeflow.errors import ConfigError, CorruptError, NotFoundError, UnavailableError
from citeflow.experiments.running import run_trials
from citeflow.experiments.trials import (
    comparison_trials,
    read_outcomes,
    read_plan,
    scaling_trials,
    start,
    write_results,
)
from citeflow.paths import RunPaths

SETTINGS = config.to_yaml(config.load(overrides=["train.minutes=3", "train.lr=0.002"]))
SHARE = {"run": "s", "run_id": "id", "launcher": "local"}
MODELS = "{sage: {}, dot: {model: {predictor: dot, hidden_channels: 32}}}"


def test_scaling_trials_have_each_size_with_each_length():
    trials = scaling_trials(SETTINGS, "s", [4.0, 1.0], [30.0, 10.0])
    found = [(trial.workers, trial.config.train.epochs) for trial in trials]
    assert found == [(1, 10), (4, 10), (1, 30), (4, 30)]
    close = scaling_trials(SETTINGS, "s", [1, 4], [0.5, 1, 1.0000001, 1e6])
    names = [trial.run_name for trial in close]
    assert names[:4:3] == ["s/m-1-w-0-e-0-5", "s/m-1-w-3-e-1"]
    assert len(set(names)) == 8
    assert {(each.config.train.minutes, each.config.train.lr) for each in trials} == {(0, 0.002)}


def test_start_divides_the_plan_among_steps_which_read_it(tmp_path):
    trials = scaling_trials(SETTINGS, "s", [1, 2, 3], [10])
    first, second = start("scaling", trials, SHARE, 2, data_root=str(tmp_path))
    assert first == {**SHARE, "trials": "m-1-w-0-e-10 m-1-w-2-e-10"}
    assert second == {**SHARE, "trials": "m-1-w-1-e-10"}
    assert read_plan(RunPaths(tmp_path, "s")) == trials
    assert len(start("scaling", trials, SHARE, 9, data_root=str(tmp_path))) == 3
    with pytest.raises(ConfigError, match="parallel"):
        start("scaling", trials, SHARE, 0, data_root=str(tmp_path))


@pytest.mark.parametrize(
    ("workers", "epochs", "message"),
    [
        ([], [1], "workers"),
        ([1], [], "epochs"),
        ([0], [1], "workers"),
        ([1.5], [1], "workers"),
        ([1, 1], [1], "workers"),
        ([1], [-1], "epochs"),
        ([1], [2, 2.0], "epochs"),
        ([2**40], [1], "at most 10000 workers"),
    ],
)
def test_scaling_trials_name_a_wrong_number(workers, epochs, message):
    with pytest.raises(ConfigError, match=message):
        scaling_trials(SETTINGS, "s", workers, epochs)


def test_comparison_trials_have_each_model_with_each_seed():
    trials = comparison_trials(SETTINGS, "c", MODELS, [1.0, 0.0], 2)
    names = [trial.run_name for trial in trials]
    assert names == ["c/sage-seed-0", "c/sage-seed-1", "c/dot-seed-0", "c/dot-seed-1"]
    assert [trial.config.train.seed for trial in trials] == [0, 1, 0, 1]
    default = config.load().model.hidden_channels
    widths = [trial.config.model.hidden_channels for trial in trials]
    assert widths == [default, default, 32, 32]
    assert {trial.workers for trial in trials} == {2}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("{sage: {}}", "two models"),
        ("[sage, dot]", "keys and values"),
        ("{a: {}, b: {", "YAML"),
        ("{a: {}, 'B C': {}}", "run name"),
        ("{a: {}, b: 3}", "model b"),
        ("{a: {}, b: {model: {wdith: 3}}}", "model.wdith"),
        ("{a: {}, b: {data: {eval_negatives: 5}}}", "model b sets: data"),
        ("{a: {}, b: {train: {seed: 3}}}", "train.seed"),
        ("{1: {}, b: {}}", "name of a model"),
        (MODELS, "seeds: -1"),
    ],
)
def test_comparison_trials_name_a_wrong_model(models, message):
    with pytest.raises(ConfigError, match=message):
        comparison_trials(SETTINGS, "c", models, [-1 if models == MODELS else 0], 1)


@pytest.fixture
def make_report(tmp_path):
    """Writes the report of a run; returns its digest."""

    def make(run_name, mrr):
        folder = RunPaths(tmp_path, run_name).report
        with files.new_directory(folder) as work:
            files.write_json(work / "report.json", report(mrr=mrr).to_json())
            files.write_json(work / "curves.json", {})
            files.write_manifest(work, "EvalReport", inputs={"run": run_name}, facts={})
        return files.read_manifest(folder, "EvalReport").sha256

    return make


def test_read_outcomes_keeps_the_order_of_the_plan(tmp_path, make_report):
    run = RunPaths(tmp_path, "s")
    trials = scaling_trials(SETTINGS, "s", [1, 2], [10])
    start("scaling", trials, SHARE, 1, data_root=str(tmp_path))
    second, first = (make_report(trial.run_name, trial.workers / 10) for trial in reversed(trials))
    found = read_outcomes(run, [f"{second} {first}"])
    assert [(each.name, each.report.test.mrr) for each in found] == [
        ("m-1-w-0-e-10", 0.1),
        ("m-1-w-1-e-10", 0.2),
    ]
    with pytest.raises(CorruptError, match="not the report"):
        read_outcomes(run, [first])
    files.delete_directory(RunPaths(tmp_path, trials[0].run_name).report)
    with pytest.raises(NotFoundError):
        read_outcomes(run, [first, second])


@pytest.mark.parametrize(("out_dir", "folder"), [("", "runs/s/published"), ("own", "own")])
def test_write_results_fills_the_folder_and_the_run_page(tmp_path, out_dir, folder, monkeypatch):
    monkeypatch.setenv("CITEFLOW_TENSORBOARD_URL", "https://host/tb")
    monkeypatch.setenv("CITEFLOW_REPORTS_URL", "https://host/runs")
    summary, page = (SimpleNamespace(path=str(tmp_path / name)) for name in ("summary", "page"))
    texts = {"s.md": "text", "s.html": "page", "s.csv": "1,2"}
    out = write_results(RunPaths(tmp_path, "s"), out_dir, texts, summary=summary, page=page)
    assert out == tmp_path / folder
    assert {path.name: path.read_text() for path in out.iterdir()} == texts
    assert (tmp_path / "page").read_text() == "page"
    link = "[TensorBoard](https://host/tb/?runFilter=s#timeseries)"
    assert (tmp_path / "summary").read_text() == f"text\n- {link}"


@pytest.fixture
def run_planned(tmp_path):
    """Plans one training of the experiment `s` for a run, and runs some trial of it for a run."""

    def run_planned(name, *, workers=(2,), run_id="id"):
        trials = scaling_trials(SETTINGS, "s", workers, [10])
        start("scaling", trials, {**SHARE, "run_id": run_id}, 1, data_root=str(tmp_path))
        files.write_manifest(tmp_path / "graph", PREPARED_GRAPH, inputs={}, facts={})
        graph = LocalArtifact.open(tmp_path / "graph", PREPARED_GRAPH, tmp_path)
        run_trials(graph, name, "s", "id", "local", "", data_root=str(tmp_path))

    return run_planned


def test_run_trials_names_a_trial_that_is_not_in_the_plan(run_planned, capsys):
    with pytest.raises(SystemExit) as ended:
        run_planned("m-1-w-0-e-10")
    assert ended.value.code == CorruptError.exit_code
    assert "not in the plan of this experiment: m-1-w-0-e-10" in capsys.readouterr().err


@pytest.mark.fault("F20")
def test_run_trials_ends_where_another_experiment_has_taken_its_name(run_planned, capsys):
    with pytest.raises(SystemExit) as ended:
        run_planned("m-1-w-1-e-10", run_id="later")
    assert ended.value.code == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "error: another experiment has taken the name: s\nhint: it belongs to run later" in said


def test_an_experiment_has_its_name_alone_on_a_machine(tmp_path, capsys):
    with files.exclusive(RunPaths(tmp_path, "mine").pipeline_lock):
        command = ["scaling", "--workers", "1", "--run-name", "mine", "--data-root", str(tmp_path)]
        assert main(command) == UnavailableError.exit_code
    assert "another process is at work on this" in capsys.readouterr().err
