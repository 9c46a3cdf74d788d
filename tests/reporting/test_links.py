from pathlib import Path

from citeflow.paths import RunPaths
from citeflow.reporting.links import MLFLOW, REPORTS, TENSORBOARD, find_links

ROOT = Path("/mnt/citeflow")
RUN = RunPaths(ROOT, "one")
TRIAL = RunPaths(ROOT, "compare/a")


def test_find_links_leads_to_the_run(monkeypatch):
    assert find_links(RUN, RUN.published) == {}
    monkeypatch.setenv(TENSORBOARD, "https://me:secret@host/tensorboard/")
    monkeypatch.setenv(REPORTS, "https://host/runs")
    monkeypatch.setenv(MLFLOW, "javascript:alert(1)")
    tensorboard = "https://host/tensorboard/?runFilter="
    assert find_links(RUN, RUN.published) == {
        "TensorBoard": f"{tensorboard}one#timeseries",
        "Report page": "https://host/runs/one/published/report.html",
    }
    assert find_links(RUN, ROOT) == {"TensorBoard": f"{tensorboard}one#timeseries"}
    trial = {"TensorBoard": f"{tensorboard}compare%2Fa#timeseries"}
    assert find_links(TRIAL, TRIAL.published) == trial
