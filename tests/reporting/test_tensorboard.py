import errno
import warnings
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import RunLog, publish_run


def read(log_dir: Path) -> EventAccumulator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def steps_of(log: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in log.Scalars(tag)]


def train(
    log_dir: Path,
    curves: dict[str, Any],
    *,
    first: int = 0,
    last: int = 10**9,
    resume: bool = False,
) -> None:
    log = RunLog(log_dir, purge_step=first if resume else None)
    for record in curves["history"]:
        if first <= record["step"] <= last:
            log.step(record)
    for record in curves["evaluations"]:
        if first <= record["step"] <= last:
            log.evaluation(record)
    log.close()


def contents(log_dir: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in log_dir.iterdir()}


def test_each_step_is_one_value_at_its_own_time(tmp_path, curves):
    train(tmp_path, curves)
    log = read(tmp_path)
    assert set(log.Tags()["scalars"]) == {
        "train/loss",
        "train/lr",
        "train/positives_per_s",
        "valid/mrr",
    }
    assert steps_of(log, "train/loss") == [record["step"] for record in curves["history"]]
    last = log.Scalars("valid/mrr")[-1]
    assert last.value == pytest.approx(curves["evaluations"][-1]["valid_mrr"])
    assert last.wall_time == curves["evaluations"][-1]["wall_time"]


def test_a_record_can_be_read_before_the_log_is_closed(tmp_path, curves):
    log = RunLog(tmp_path, purge_step=None)
    log.step(curves["history"][0])
    assert steps_of(read(tmp_path), "train/loss") == [5]
    log.close()


def test_a_resumed_training_leaves_no_step_twice_and_none_out(tmp_path, curves):
    train(tmp_path, curves, last=1_000)
    train(tmp_path, curves, first=701, resume=True)
    log = read(tmp_path)
    assert steps_of(log, "train/loss") == [record["step"] for record in curves["history"]]
    assert steps_of(log, "valid/mrr") == [record["step"] for record in curves["evaluations"]]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_resume_on_a_machine_whose_clock_is_behind_is_read_last(tmp_path, curves, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_780_000_500.0)
    train(tmp_path, curves, last=1_000)
    monkeypatch.setattr("time.time", lambda: 1_770_000_000.0)
    train(tmp_path, curves, first=701, resume=True)
    assert steps_of(read(tmp_path), "train/loss") == [
        record["step"] for record in curves["history"]
    ]


def test_a_training_that_starts_afresh_replaces_the_curves_of_the_one_before(
    tmp_path, report, curves
):
    train(tmp_path, curves)
    publish_run(tmp_path, report, curves)
    train(tmp_path, curves, last=300)
    log = read(tmp_path)
    assert steps_of(log, "train/loss") == list(range(5, 301, 5))
    assert "test/mrr" not in log.Tags()["scalars"]


def test_a_record_cut_by_a_kill_hides_none_of_those_before_and_after(tmp_path, curves):
    train(tmp_path, curves, last=700)
    (first,) = tmp_path.iterdir()
    first.write_bytes(first.read_bytes()[:-7])
    train(tmp_path, curves, first=701, resume=True)
    assert steps_of(read(tmp_path), "train/loss") == [
        record["step"] for record in curves["history"]
    ]


def test_publishing_adds_the_test_figures_and_the_baselines_as_level_lines(
    tmp_path, report, curves
):
    train(tmp_path, curves)
    publish_run(tmp_path, report, curves)
    log = read(tmp_path)
    assert log.Scalars("test/mrr")[0].value == pytest.approx(0.7518)
    assert steps_of(log, "test/hits@10") == [1_396]
    assert steps_of(log, "baseline/adamic_adar") == [0, 1_396]
    assert len({event.value for event in log.Scalars("baseline/adamic_adar")}) == 1
    for tag in log.Tags()["scalars"]:
        steps = steps_of(log, tag)
        assert steps == sorted(set(steps)), tag


def test_publishing_shows_the_settings_as_hyperparameters(tmp_path, report, curves):
    publish_run(tmp_path, report, curves)
    plugin = read(tmp_path).PluginTagToContent(hparams_metadata.PLUGIN_NAME)
    start = plugin[hparams_metadata.SESSION_START_INFO_TAG]
    values = hparams_metadata.parse_session_start_info_plugin_data(start).hparams
    assert values["train.lr"].number_value == 0.003
    assert values["model.predictor"].string_value == "structural"
    assert values["model.normalize"].string_value == "False"
    assert values["workers"].number_value == 2
    experiment = hparams_metadata.parse_experiment_plugin_data(
        plugin[hparams_metadata.EXPERIMENT_TAG]
    )
    named = {info.name.tag for info in experiment.metric_infos}
    assert {"hparam/test_mrr", "hparam/valid_mrr", "hparam/train_seconds"} <= named
    assert named <= set(read(tmp_path).Tags()["scalars"])


def test_publishing_lays_out_loss_mrr_throughput_and_resources(tmp_path, report, curves):
    publish_run(tmp_path, report, curves)
    (event,) = read(tmp_path).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == [
        "Loss",
        "MRR",
        "Throughput",
        "Resources",
    ]


def test_the_text_card_holds_settings_versions_and_facts_and_no_live_html(tmp_path, report, curves):
    report["versions"]["torch"] = "<script>2.13</script>"
    publish_run(tmp_path, report, curves)
    (event,) = read(tmp_path).Tensors("run/text_summary")
    card = event.tensor_proto.string_val[0].decode()
    assert "| train.lr | 0.003 |" in card.replace("&#95;", "_")
    assert "| Papers | 29,557 |" in card
    assert "&lt;script&gt;2.13" in card
    assert "<script>" not in card


def test_publishing_twice_changes_nothing(tmp_path, report, curves):
    train(tmp_path, curves)
    publish_run(tmp_path, report, curves)
    before = contents(tmp_path)
    publish_run(tmp_path, report, curves)
    assert contents(tmp_path) == before


def test_publishing_another_result_replaces_the_first(tmp_path, report, curves):
    train(tmp_path, curves, last=700)
    publish_run(tmp_path, report, curves)
    train(tmp_path, curves, first=701, resume=True)
    report["test"]["mrr"] = 0.9
    publish_run(tmp_path, report, curves)
    values = [(event.step, event.value) for event in read(tmp_path).Scalars("test/mrr")]
    assert values == [(1_396, pytest.approx(0.9))]


def test_a_run_without_curves_can_be_published(tmp_path):
    publish_run(tmp_path / "new", {"dataset": "x", "test": {"mrr": 0.5}}, {})
    assert read(tmp_path / "new").Scalars("test/mrr")[0].step == 0


@pytest.mark.fault("F17")
def test_a_full_disk_ends_the_curve_and_not_the_training(tmp_path, monkeypatch, capsys, figure):
    log = RunLog(tmp_path, purge_step=None)
    record = {"step": 1, "wall_time": 1e9, "loss": 1.0, "lr": 0.1, "positives_per_s": 9.0}
    log.step(record)
    real, failures = log._writer, []

    class Full:
        def write(self, content):
            failures.append(len(content))
            raise OSError(errno.ENOSPC, "No space left on device")

    log._writer = Full()
    for step in (2, 3):
        log.step({**record, "step": step})
    log._writer = real
    log.step({**record, "step": 4})
    log.close()
    assert len(failures) == 1
    assert capsys.readouterr().err.count("No space left on device") == 1
    (file,) = tmp_path.iterdir()
    assert [entry.step for entry in event_files.read_scalars(file, "train/loss")] == [1]
    figure(failures=1)
