import errno
import warnings
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from citeflow.report import Curves
from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import ResourceLog, RunLog, publish_run


def read(log_dir: Path) -> EventAccumulator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def steps_of(log: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in log.Scalars(tag)]


def train(
    log_dir: Path, curves: Curves, *, first: int = 0, last: int = 10**9, resume: bool = False
) -> None:
    log = RunLog(log_dir, purge_step=first if resume else None)
    for record in curves.history:
        if first <= record["step"] <= last:
            log.step(record)
    for record in curves.evaluations:
        if first <= record["step"] <= last:
            log.evaluation(record)
    log.close()


@pytest.fixture(scope="module")
def published(report, curves, tmp_path_factory) -> EventAccumulator:
    log_dir = tmp_path_factory.mktemp("published")
    train(log_dir, curves)
    hostile = {**report.versions, "torch": "<script>2.13</script>"}
    publish_run(log_dir, report.model_copy(update={"versions": hostile}), curves)
    return read(log_dir)


def test_run_log_writes_each_step_at_its_own_time(tmp_path, curves):
    train(tmp_path, curves)
    log = read(tmp_path)
    train_tags = {"train/loss", "train/lr", "train/positives_per_s"}
    valid_tags = {"valid/mrr", "valid/accuracy", "valid/hard_mrr"}
    assert set(log.Tags()["scalars"]) == train_tags | valid_tags
    assert steps_of(log, "train/loss") == [record["step"] for record in curves.history]
    last = log.Scalars("valid/mrr")[-1]
    assert last.value == pytest.approx(curves.evaluations[-1]["valid_mrr"])
    assert last.wall_time == curves.evaluations[-1]["wall_time"]


@pytest.mark.parametrize("clock", ["ahead", "behind", "torn"])
def test_run_log_resume_has_every_step_once(tmp_path, curves, monkeypatch, clock):
    monkeypatch.setattr("time.time", lambda: 1_780_000_500.0)
    train(tmp_path, curves, last=1_000)
    if clock == "torn":
        (first,) = tmp_path.iterdir()
        first.write_bytes(first.read_bytes()[:-7])
    later = 1_790_000_000.0 if clock != "behind" else 1_770_000_000.0
    monkeypatch.setattr("time.time", lambda: later)
    train(tmp_path, curves, first=701, resume=True)
    log = read(tmp_path)
    assert steps_of(log, "train/loss") == [record["step"] for record in curves.history]
    assert steps_of(log, "valid/mrr") == [record["step"] for record in curves.evaluations]
    assert len(list(tmp_path.iterdir())) == 2


def test_run_log_of_a_new_training_replaces_the_old_curves(tmp_path, report, curves):
    train(tmp_path, curves)
    publish_run(tmp_path, report, curves)
    train(tmp_path, curves, last=300)
    log = read(tmp_path)
    assert steps_of(log, "train/loss") == list(range(5, 301, 5))
    assert "test/mrr" not in log.Tags()["scalars"]


@pytest.mark.fault("F17")
def test_run_log_on_a_full_disk_ends_the_curve_only(tmp_path, monkeypatch, capsys):
    log = RunLog(tmp_path, purge_step=None)
    record = {"step": 1, "wall_time": 1e9, "loss": 1.0, "lr": 0.1, "positives_per_s": 9.0}
    log.step(record)
    write = log._writer.write
    failures = []

    def fail(content):
        failures.append(len(content))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log._writer, "write", fail)
    for step in (2, 3):
        log.step({**record, "step": step})
    monkeypatch.setattr(log._writer, "write", write)
    log.step({**record, "step": 4})
    log.close()
    assert len(failures) == 1
    assert capsys.readouterr().err.count("No space left on device") == 1
    (file,) = tmp_path.iterdir()
    assert [entry.step for entry in event_files.read_scalars(file, "train/loss")] == [1]


def test_resource_log_uses_readable_units(tmp_path):
    log = ResourceLog(tmp_path, 3, purge_step=None)
    rates = {"cpu_cores": 1.5, "read_bytes_per_s": 2e6, "sent_bytes_per_s": float("nan")}
    log.add(rates, {"memory_bytes": 2**30}, step=7, wall_time=1e9)
    log.close()
    scalars = read(tmp_path / "rank-3")
    values = {tag: scalars.Scalars(tag)[0].value for tag in scalars.Tags()["scalars"]}
    assert values == {
        "resources/cpu_cores": 1.5,
        "resources/read_mb_per_s": 2.0,
        "resources/memory_gib": 1.0,
    }


def test_publish_run_adds_scores_and_hyperparameters(published):
    assert published.Scalars("test/mrr")[0].value == pytest.approx(0.7518)
    assert steps_of(published, "test/mrr") == [1_396]
    assert published.Scalars("cold/recall@100")[0].value == pytest.approx(0.165)
    assert steps_of(published, "baseline/adamic_adar") == [0, 1_396]
    for tag in published.Tags()["scalars"]:
        steps = steps_of(published, tag)
        assert steps == sorted(set(steps)), tag
    plugin = published.PluginTagToContent(hparams_metadata.PLUGIN_NAME)
    start = plugin[hparams_metadata.SESSION_START_INFO_TAG]
    values = hparams_metadata.parse_session_start_info_plugin_data(start).hparams
    assert values["train.lr"].number_value == 0.003
    assert values["model.predictor"].string_value == "structural"
    assert values["model.normalize"].string_value == "False"
    assert values["workers"].number_value == 2
    experiment = plugin[hparams_metadata.EXPERIMENT_TAG]
    infos = hparams_metadata.parse_experiment_plugin_data(experiment).metric_infos
    names = {info.name.tag for info in infos}
    assert {
        "hparam/test_mrr",
        "hparam/valid_mrr",
        "hparam/cold_mrr",
        "hparam/train_seconds",
    } <= names
    assert names <= set(published.Tags()["scalars"])


def test_publish_run_adds_layout_and_text_card(published):
    (event,) = published.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    titles = [category.title for category in layout.category]
    assert titles == ["Loss", "MRR", "Accuracy", "Throughput", "Resources"]
    (event,) = published.Tensors("run/text_summary")
    card = event.tensor_proto.string_val[0].decode()
    assert "| train.lr | 0.003 |" in card.replace("&#95;", "_")
    assert "| Papers | 29,557 |" in card
    assert "&lt;script&gt;2.13" in card
    assert "<script>" not in card


def test_publish_run_twice_changes_nothing(tmp_path, report, curves):
    train(tmp_path, curves)
    publish_run(tmp_path, report, curves)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    publish_run(tmp_path, report, curves)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_publish_run_replaces_another_result(tmp_path, report, curves):
    train(tmp_path, curves, last=700)
    publish_run(tmp_path, report, curves)
    train(tmp_path, curves, first=701, resume=True)
    better = report.test.model_copy(update={"mrr": 0.9})
    publish_run(tmp_path, report.model_copy(update={"test": better}), curves)
    values = [(event.step, event.value) for event in read(tmp_path).Scalars("test/mrr")]
    assert values == [(1_396, pytest.approx(0.9))]
