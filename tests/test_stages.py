"""The verbs from end to end, and what they note of their cost."""

import json

import pytest

from citeflow import config, files, stages
from citeflow.errors import ConfigError, CorruptError, NotFoundError

BYTES = {"read_bytes", "written_bytes", "received_bytes", "sent_bytes"}
VERBS = ["download", "preprocess", "train", "evaluate", "publish"]
SMALL = config.load(overrides=["synthetic.num_papers=150", "data.eval_negatives=20"])


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return stages.publish(trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=out)


def stages_of(folder):
    return files.read_json(folder / "manifest.json")["facts"].get("stages", {})


def test_every_noun_carries_the_cost_of_the_verbs_that_led_to_it(trained, published):
    raw = next((trained.data_root / "raw").iterdir())
    assert list(stages_of(raw)) == VERBS[:1]
    assert list(stages_of(trained.graph)) == VERBS[:2]
    assert list(stages_of(trained.model)) == VERBS[:3]
    report = json.loads((trained.report / "report.json").read_text())
    assert list(report["stages"]) == VERBS[:4]
    assert list(json.loads((published / "report.json").read_text())["stages"]) == VERBS


def test_costs_are_seconds_and_bytes(published):
    for cost in json.loads((published / "report.json").read_text())["stages"].values():
        assert {"seconds", "peak_rss_bytes", "cpu_seconds"} <= set(cost)
        assert set(cost) <= {"seconds", "peak_rss_bytes", "cpu_seconds", *BYTES}
        assert 0 <= cost["seconds"] < 600
        assert 0 < cost["cpu_seconds"] < 600
        assert all(cost[name] >= 0 for name in BYTES & set(cost))
        assert 10**7 < cost["peak_rss_bytes"] < 10**11


def test_the_note_of_the_cost_leaves_digest_and_files_as_they_were(trained):
    for folder, kind in ((trained.graph, "PreparedGraph"), (trained.model, "TrainedModel")):
        manifest = files.verify(folder, kind)
        parts = {key: manifest[key] for key in ("kind", "inputs", "files")}
        assert manifest.sha256 == files.sha256_of_json(parts)


def test_each_noun_names_the_one_that_it_was_made_from(trained):
    raw, graph = next((trained.data_root / "raw").iterdir()), trained.graph
    digest = {
        folder: files.read_json(folder / "manifest.json")["sha256"]
        for folder in (raw, graph, trained.model)
    }
    for folder, source, kind in (
        (graph, raw, "RawDataset"),
        (trained.model, graph, "PreparedGraph"),
        (trained.report, trained.model, "TrainedModel"),
    ):
        assert files.read_json(folder / "manifest.json")["inputs"][kind] == digest[source]


def test_a_verb_that_finds_its_result_returns_it_with_the_cost_of_its_making(tmp_path):
    raw = stages.download("synthetic", data_root=tmp_path, config=SMALL)
    graph = stages.preprocess(raw, data_root=tmp_path, config=SMALL)
    before = (graph / "manifest.json").read_bytes()
    assert stages.download("synthetic", data_root=tmp_path, config=SMALL) == raw
    assert stages.preprocess(raw, data_root=tmp_path, config=SMALL) == graph
    assert (graph / "manifest.json").read_bytes() == before


def test_other_settings_of_the_data_make_another_graph(tmp_path):
    raw = stages.download("synthetic", data_root=tmp_path, config=SMALL)
    other = config.load(overrides=["synthetic.num_papers=150", "data.eval_negatives=21"])
    folders = {
        stages.preprocess(raw, data_root=tmp_path, config=settings) for settings in (SMALL, other)
    }
    assert len(folders) == 2


def test_what_is_published_is_the_report_a_page_and_the_whole_model(trained, published):
    assert {path.name for path in published.iterdir()} == {"report.json", "report.html", "model"}
    assert files.verify(published / "model", "TrainedModel") == files.verify(
        trained.model, "TrainedModel"
    )
    report = json.loads((published / "report.json").read_text())
    assert report["test"] == json.loads((trained.report / "report.json").read_text())["test"]
    page = (published / "report.html").read_text()
    assert "<html" in page
    assert f"{report['test']['mrr']:.4f}" in page


def test_publishing_again_replaces_what_was_published(trained, published):
    files.write_text(published / "report.html", "old")
    files.write_text(published / "model" / "left over", "old")
    logs = sorted(path.name for path in trained.log_dir.iterdir())
    stages.publish(trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=published)
    assert "<html" in (published / "report.html").read_text()
    assert not (published / "model" / "left over").exists()
    assert sorted(path.name for path in trained.log_dir.iterdir()) == logs


@pytest.mark.parametrize("manifest", [None, "no JSON", "[]", "{}", '{"kind": "PreparedGraph"}'])
def test_a_model_folder_that_is_somebody_s_own_is_not_replaced(trained, tmp_path, manifest):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    if manifest is not None:
        (tmp_path / "model" / "manifest.json").write_text(manifest)
    for call in (
        lambda: stages.check_places(tmp_path, tmp_path),
        lambda: stages.publish(
            trained.report, model=trained.model, log_dir=tmp_path / "log", out_dir=tmp_path
        ),
    ):
        with pytest.raises(ConfigError, match="would be replaced"):
            call()
    assert (tmp_path / "model" / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_or_a_link_in_place_of_the_model_is_not_replaced(tmp_path):
    (tmp_path / "model").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="would be replaced"):
        stages.check_places(tmp_path, tmp_path)
    (tmp_path / "model").unlink()
    (tmp_path / "model").touch()
    with pytest.raises(ConfigError, match="would be replaced"):
        stages.check_places(tmp_path, tmp_path)


def test_a_place_that_is_or_lies_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for places in ((tmp_path / "file", tmp_path), (tmp_path, tmp_path / "file" / "out")):
        with pytest.raises(ConfigError, match=r"where a folder belongs: .*file\n"):
            stages.check_places(*places)


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.os, "access", lambda path, mode: path != tmp_path / "locked")
    (tmp_path / "locked").mkdir()
    stages.check_places(tmp_path / "new", tmp_path / "new" / "out")
    with pytest.raises(ConfigError, match=r"cannot be written to: .*locked\n"):
        stages.check_places(tmp_path / "locked" / "new", tmp_path)


def test_a_damaged_report_is_not_published(trained, tmp_path):
    files.copy_directory(trained.report, tmp_path / "report")
    (tmp_path / "report" / "report.json").write_text("{}")
    with pytest.raises(CorruptError, match=r"report\.json"):
        stages.publish(
            tmp_path / "report",
            model=trained.model,
            log_dir=tmp_path / "log",
            out_dir=tmp_path / "out",
        )
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


def test_a_stage_without_its_input_leaves_nothing(tmp_path):
    none = tmp_path / "none"
    for stage in (
        lambda: stages.preprocess(none, data_root=tmp_path, config=SMALL),
        lambda: stages.evaluate(none, graph=none, run_dir=tmp_path / "run"),
        lambda: stages.publish(
            none, model=none, log_dir=tmp_path / "log", out_dir=tmp_path / "out"
        ),
    ):
        with pytest.raises(NotFoundError, match="none"):
            stage()
    assert list(tmp_path.iterdir()) == []
