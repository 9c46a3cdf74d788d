"""The compiled pipeline with `launcher=pytorchjob`, from the download to the report; only the cluster is a stand-in."""

import yaml
from clusters import NAMESPACE
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

from citeflow import config, files
from citeflow.kubeflow import local_runner

SETTINGS = [
    "synthetic.num_papers=400",
    "data.eval_negatives=50",
    "model.hidden_channels=16",
    "model.predictor=dot",
    "train.epochs=3",
]


def test_the_pipeline_trains_in_the_pods_of_a_job(tmp_path, monkeypatch, capfd):
    root = tmp_path / "data"
    root.mkdir()
    with KubeApi() as kube, TrainingOperator(kube, real=True):
        monkeypatch.setenv(
            "KUBECONFIG", str(kube.write_kubeconfig(tmp_path / "kubeconfig", NAMESPACE))
        )
        arguments = {
            "settings": config.to_yaml(config.load(overrides=SETTINGS)),
            "workers": 2,
            "launcher": "pytorchjob",
            "job": yaml.safe_dump({"volumes": {"citeflow-data": str(root)}, "cpu": 1}),
            "run_name": "as-a-job",
            "out_dir": str(tmp_path / "out"),
            "data_root": str(root),
        }
        local_runner.run(arguments, scratch=root, verbose=True)
        jobs = kube.list("pytorchjobs")
    report = files.read_json(tmp_path / "out" / "report.json")
    assert report["train"]["workers"] == 2
    assert report["test"]["mrr"] > 0.05
    assert report["stages"]["train"]["peak_rss_bytes"] > 100e6
    assert len(jobs) == 1
    assert "worker-0 | " in capfd.readouterr().err
