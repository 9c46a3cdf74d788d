import sys

import pytest

from citeflow import files
from citeflow.errors import ConfigError, CorruptError, NotFoundError
from citeflow.paths import RunPaths
from citeflow.report import Report
from citeflow.reporting import publish as module
from citeflow.reporting.publish import check_output_folders, publish


def test_publish_writes_report_page_and_model(trained, out):
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html", "model"}
    assert files.verify(out / "model", "TrainedModel") == files.verify(
        trained.model, "TrainedModel"
    )
    page = (out / "report.html").read_text()
    assert f"{Report.read(out).test.mrr:.4f}" in page


def test_publish_keeps_the_report_and_adds_its_own_cost(trained, out):
    before = files.read_json(trained.report / "report.json")
    after = files.read_json(out / "report.json")
    cost = after["stages"].pop("publish")
    assert after == before
    assert list(after) == list(before)
    assert list(after["test"]) == list(before["test"])
    assert {"seconds", "cpu_seconds", "peak_rss_bytes"} <= set(cost)


def test_publish_again_replaces_what_was_published(trained, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # is not needed without its variable
    run = trained.run
    files.write_text(out / "report.html", "old")
    files.write_text(out / "model" / "left over", "old")
    logs = sorted(path.name for path in run.logs.iterdir())
    publish(trained.report, model=trained.model, run=run, out=out)
    assert "<html" in (out / "report.html").read_text()
    assert not (out / "model" / "left over").exists()
    assert sorted(path.name for path in run.logs.iterdir()) == logs


def test_publish_refuses_a_damaged_or_missing_report(trained, tmp_path):
    files.copy_directory(trained.report, tmp_path / "report")
    (tmp_path / "report" / "report.json").write_text("{}")
    run = RunPaths(tmp_path, "r")
    with pytest.raises(CorruptError, match=r"report\.json"):
        publish(tmp_path / "report", model=trained.model, run=run, out=tmp_path / "out")
    with pytest.raises(NotFoundError, match="none"):
        publish(tmp_path / "none", model=trained.model, run=run, out=tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


@pytest.mark.parametrize("manifest", [None, "no JSON", "[]", '{"kind": "PreparedGraph"}'])
def test_publish_replaces_no_folder_of_the_user(trained, tmp_path, manifest):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    if manifest is not None:
        (tmp_path / "model" / "manifest.json").write_text(manifest)
    with pytest.raises(ConfigError, match="would be replaced"):
        publish(trained.report, model=trained.model, run=RunPaths(tmp_path, "r"), out=tmp_path)
    assert (tmp_path / "model" / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_check_output_folders_refuses_other_things(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="would be replaced"):
        check_output_folders(tmp_path, tmp_path / "out")
    for folders in ((tmp_path / "file", tmp_path), (tmp_path, tmp_path / "file" / "out")):
        with pytest.raises(ConfigError, match=r"where a folder belongs: .*file\n"):
            check_output_folders(*folders)
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(module.os, "access", lambda path, mode: path != tmp_path / "locked")
    check_output_folders(tmp_path / "new", tmp_path / "new" / "out")
    with pytest.raises(ConfigError, match=r"cannot be written to: .*locked\n"):
        check_output_folders(tmp_path / "locked" / "new", tmp_path)
