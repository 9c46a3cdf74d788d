"""The example of Katib: its resource has no schema offline, so its parts are checked."""

import json
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml

PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]+)\}")
VALUES = {
    "trial": "cora-x7k2qabc",
    "train-lr": "0.0123",
    "train-num-negatives": "173",
    "model-dropout": "0.25",
    "model-hidden-channels": "64",
    "model-num-layers": "3",
}


@pytest.fixture(scope="module")
def spec(checkout):
    return yaml.safe_load((checkout / "manifests/katib/experiment.yaml").read_text())["spec"]


@pytest.fixture(scope="module")
def job(spec):
    """The job of a trial, as Katib sends it."""
    text = json.dumps(spec["trialTemplate"]["trialSpec"])
    job = json.loads(PLACEHOLDER.sub(lambda match: VALUES[match[1]], text))
    job["metadata"] |= {"name": VALUES["trial"], "namespace": "default"}
    return job


def test_placeholders_are_the_parameters(spec):
    template = spec["trialTemplate"]
    used = set(PLACEHOLDER.findall(json.dumps(template["trialSpec"])))
    assert used == {parameter["name"] for parameter in template["trialParameters"]} == VALUES.keys()
    searched = {parameter["name"] for parameter in spec["parameters"]}
    references = {parameter["reference"] for parameter in template["trialParameters"]}
    assert references == searched | {"${trialSpec.Name}"}


def test_trial_is_a_valid_pytorchjob(checkout, job):
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **worker}
    pod["metadata"]["name"] = "p"
    kubernetes_validate.validate(pod, "1.34", strict=True)
    path = checkout.parent / "shared" / "schemas" / "pytorchjob.v1.json"
    if path.is_file():
        schema = json.loads(path.read_text())
        jsonschema.validate(job, schema.get("openAPIV3Schema", schema))


def test_worker_understands_the_arguments(job):
    from citeflow.training import worker

    container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    args = container["args"]
    for argument in args:  # Katib starts them through a shell
        assert re.fullmatch(r"[\w./:=+,-]+|--local-addr=\$\(POD_IP\)", argument)
    given = worker._parser().parse_args(args[args.index("citeflow.training.worker") + 1 :])
    assert str(given.graph) == "/mnt/citeflow/prepared/EXAMPLE"
    assert str(given.job) == f"/mnt/citeflow/runs/cora/{VALUES['trial']}/job.json"
    from citeflow import config

    settings = config.load(overrides=given.set)
    assert (settings.train.epochs, settings.train.lr) == (20.0, 0.0123)
    assert (settings.train.num_negatives, settings.model.num_layers) == (173, 3)
    assert (settings.model.dropout, settings.model.hidden_channels) == (0.25, 64)
