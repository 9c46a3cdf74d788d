import pytest

from citeflow import config, files
from citeflow.errors import ConfigError, CorruptError, NotFoundError
from citeflow.experiments.trials import comparison_trials, outcomes, parse_models, scaling_trials

SETTINGS = config.to_yaml(config.load(overrides=["train.minutes=3", "train.lr=0.002"]))
MODELS = "{sage: {}, dot: {model: {predictor: dot, hidden_channels: 32}}}"


def test_a_sweep_has_every_number_of_workers_with_every_number_of_epochs():
    trials = scaling_trials(SETTINGS, "s", [4.0, 1.0], [30.0, 10.0])
    assert [(trial.workers, trial.config.train.epochs) for trial in trials] == [
        (1, 10),
        (4, 10),
        (1, 30),
        (4, 30),
    ]


def test_a_run_is_named_after_its_master_its_other_workers_and_its_epochs():
    assert [trial.run_name for trial in scaling_trials(SETTINGS, "s", [4], [10])] == [
        "s/m-1-w-3-e-10"
    ]
    assert [trial.run_name for trial in scaling_trials(SETTINGS, "s", [1], [0.5])] == [
        "s/m-1-w-0-e-0-5"
    ]
    assert (
        len({trial.run_name for trial in scaling_trials(SETTINGS, "s", [1], [1, 1.0000001, 1e6])})
        == 3
    )


def test_a_sweep_keeps_all_other_settings_and_measures_epochs_and_not_minutes():
    (trial,) = scaling_trials(SETTINGS, "s", [1], [10])
    assert trial.config.train.minutes == 0
    assert trial.config.train.lr == 0.002


def test_what_a_loop_hands_over_gives_the_settings_back():
    (trial,) = scaling_trials(SETTINGS, "s", [2], [10])
    item = trial.item()
    assert config.from_yaml(item["settings"]) == trial.config
    assert (item["run_name"], item["workers"]) == ("s/m-1-w-1-e-10", 2)
    assert "name" not in item, "an item of a loop has a name of its own in KFP"


@pytest.mark.parametrize(
    ("workers", "epochs", "told"),
    [
        ([], [1], "workers"),
        ([1], [], "epochs"),
        ([0], [1], "workers"),
        ([1.5], [1], "workers"),
        (["two"], [1], "workers"),
        ([1, 1], [1], "workers"),
        ([1], [0], "epochs"),
        ([1], [-1], "epochs"),
        ([1], [2, 2.0], "epochs"),
        ([2**40], [1], "at most 10000 workers"),
    ],
)
def test_a_wrong_number_is_named(workers, epochs, told):
    with pytest.raises(ConfigError, match=told):
        scaling_trials(SETTINGS, "s", workers, epochs)


def test_a_comparison_has_every_model_with_every_seed():
    trials = comparison_trials(SETTINGS, "c", MODELS, [1.0, 0.0], 2)
    assert [trial.run_name for trial in trials] == [
        "c/sage-seed-0",
        "c/sage-seed-1",
        "c/dot-seed-0",
        "c/dot-seed-1",
    ]
    assert [trial.config.train.seed for trial in trials] == [0, 1, 0, 1]
    assert {trial.config.model.hidden_channels for trial in trials} == {
        config.load().model.hidden_channels,
        32,
    }
    assert {trial.workers for trial in trials} == {2}


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ("{sage: {}}", "two models"),
        ("[sage, dot]", "two models"),
        ("", "two models"),
        ("{a: {}, b: {", "YAML"),
        ("{a: {}, 'B C': {}}", "run name"),
        ("{a: {}, b: 3}", "model b"),
        ("{a: {}, b: {model: {wdith: 3}}}", "model.wdith"),
        ("{a: {}, b: {modle: {}}}", "modle"),
        ("{a: {}, b: {data: {eval_negatives: 5}}}", "model b sets: data"),
        ("{a: {}, b: {train: {seed: 3}}}", "train.seed"),
        ("{1: {}, b: {}}", "name of a model"),
    ],
)
def test_a_wrong_model_is_named(models, told):
    with pytest.raises(ConfigError, match=told):
        comparison_trials(SETTINGS, "c", models, [0], 1)


def test_a_model_without_changes_is_the_base_itself():
    assert parse_models("a:\nb: {model: {num_layers: 1}}\n") == {
        "a": {},
        "b": {"model": {"num_layers": 1}},
    }


@pytest.fixture
def report(tmp_path):
    """Makes the report of a run; returns its digest."""

    def make(run_name):
        with files.new_directory(tmp_path / "runs" / run_name / "report") as work:
            files.write_json(work / "report.json", {"run": run_name})
            files.write_json(work / "curves.json", {})
            files.write_manifest(work, "EvalReport", inputs={"run": run_name}, facts={})
        return files.read_manifest(tmp_path / "runs" / run_name / "report", "EvalReport").sha256

    return make


def test_the_outcomes_are_the_reports_of_the_items_in_their_order(tmp_path, report):
    items = [{"run_name": "s/b"}, {"run_name": "s/a"}]
    found = outcomes(items, {report("s/a"), report("s/b")}, tmp_path)
    assert [(outcome.name, outcome.report["run"]) for outcome in found] == [
        ("b", "s/b"),
        ("a", "s/a"),
    ]


def test_a_report_that_this_experiment_did_not_make_is_refused(tmp_path, report):
    report("s/a")
    with pytest.raises(CorruptError, match="not the report"):
        outcomes([{"run_name": "s/a"}], ["0" * 64], tmp_path)


def test_a_missing_report_is_named(tmp_path):
    with pytest.raises(NotFoundError):
        outcomes([{"run_name": "s/a"}], [], tmp_path)
