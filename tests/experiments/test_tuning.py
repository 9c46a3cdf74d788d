import pytest

from citeflow import files
from citeflow.artifacts import PREPARED_GRAPH, TRAINED_MODEL, LocalArtifact
from citeflow.errors import ConfigError
from citeflow.experiments import study, tuning
from citeflow.experiments.trials import take_name
from citeflow.reporting.tensorboard import RunLog
from citeflow.tasks import get_task, load_settings

CITATIONS = get_task("citation")
SETTING = "evaluation.protocol"


def test_read_validations_has_each_once_after_restarts(tmp_path):
    def log(purge_step, *records):
        run_log = RunLog(tmp_path, purge_step=purge_step)
        for step, mrr in records:
            figures = {"valid_mrr": mrr, "valid_hard_mrr": mrr / 2}
            run_log.evaluation({"step": step, "wall_time": 1.0, **figures})
        run_log.close()

    curve_of = {
        name: CITATIONS.criterion(load_settings(overrides=[f"{SETTING}={name}"])).curve
        for name in ("ogb", "all", "cold")
    }
    assert list(tuning.read_validations(tmp_path, curve_of["ogb"])) == []
    log(None, (4, 0.25), (8, 0.5), (12, 0.125))
    log(8, (8, 0.5), (12, 0.75))
    assert list(tuning.read_validations(tmp_path, curve_of["ogb"])) == [0.25, 0.5, 0.75]
    assert list(tuning.read_validations(tmp_path, curve_of["all"])) == [0.125, 0.25, 0.375]
    assert list(tuning.read_validations(tmp_path, curve_of["cold"])) == []


def test_score_is_that_of_the_training_among_random_papers(tmp_path):
    files.write_manifest(tmp_path, TRAINED_MODEL, inputs={}, facts={"valid_mrr": 0.25})
    data = tmp_path / "graph"
    assert CITATIONS.validation_score(tmp_path, data=data, settings=load_settings()) == 0.25


def test_create_study_of_several_pods_needs_a_database(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CITEFLOW_POD_NAME", "tune-1")
    with pytest.raises(SystemExit) as caught:
        tuning.create_study(None, "", "", 4, 2, 1, {"run": "s"}, data_root=str(tmp_path))
    assert caught.value.code == ConfigError.exit_code
    assert "parallel trials need a database: parallel=2" in capsys.readouterr().err


@pytest.mark.fault("F20")
def test_train_trials_ends_where_another_search_has_taken_the_name(define, run, tmp_path, capsys):
    study.create_or_resume(run, define(), 1)
    take_name(run, "later")
    files.write_manifest(tmp_path / "graph", PREPARED_GRAPH, inputs={}, facts={})
    graph = LocalArtifact.open(tmp_path / "graph", PREPARED_GRAPH, tmp_path)
    with pytest.raises(SystemExit) as ended:
        tuning.train_trials(graph, "0", "s", 1, "id", "local", "", data_root=str(tmp_path))
    assert ended.value.code == ConfigError.exit_code
    assert "another experiment has taken the name: s" in capsys.readouterr().err
