"""The verbs from end to end, and what they note of their cost."""

import json

import pytest

from citeflow import config, files, stages
from citeflow.errors import NotFoundError

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
