import pytest

from citeflow.errors import ConfigError
from citeflow.experiments import tuning
from citeflow.reporting.tensorboard import RunLog


def test_read_validations_has_each_once_after_restarts(tmp_path):
    def log(purge_step, *records):
        run_log = RunLog(tmp_path, purge_step=purge_step)
        for step, mrr in records:
            run_log.evaluation({"step": step, "valid_mrr": mrr, "wall_time": 1.0})
        run_log.close()

    assert list(tuning.read_validations(tmp_path)) == []
    log(None, (4, 0.25), (8, 0.5), (12, 0.125))
    log(8, (8, 0.5), (12, 0.75))
    assert list(tuning.read_validations(tmp_path)) == [0.25, 0.5, 0.75]


def test_create_study_of_several_pods_needs_a_database(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CITEFLOW_POD_NAME", "tune-1")
    with pytest.raises(SystemExit) as caught:
        tuning.create_study(None, "", "", 4, 2, 1, {"run": "s"}, data_root=str(tmp_path))
    assert caught.value.code == ConfigError.exit_code
    assert "parallel trials need a database: parallel=2" in capsys.readouterr().err
