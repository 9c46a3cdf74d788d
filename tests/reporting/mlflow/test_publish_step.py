import pytest
import yaml


@pytest.fixture(scope="module", params=["citation", "scaling", "compare"])
def publish(checkout, request):
    """What Kubernetes adds to the step Publish of a pipeline."""
    path = checkout / "pipelines" / request.param / "pipeline.yaml"
    if not path.exists():
        pytest.skip("there is no such pipeline")
    platform = list(yaml.safe_load_all(path.read_text()))[1]["platforms"]["kubernetes"]
    return platform["deploymentSpec"]["executors"]["exec-publish"]


def test_it_learns_from_an_optional_config_map_where_mlflow_is(publish):
    (config,) = publish["configMapAsEnv"]
    assert (config["configMapName"], config["optional"]) == ("citeflow-mlflow", True)
    assert {key["envVar"] for key in config["keyToEnv"]} == {
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
    }


def test_it_logs_in_with_an_optional_secret(publish):
    (secret,) = publish["secretAsEnv"]
    assert (secret["secretName"], secret["optional"]) == ("citeflow-mlflow", True)
    names = {f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN")}
    assert {key["envVar"] for key in secret["keyToEnv"]} == names


def test_it_knows_the_id_of_its_run(publish):
    assert publish["fieldPathAsEnv"] == [
        {"fieldPath": "metadata.labels['pipeline/runid']", "name": "CITEFLOW_KFP_RUN_ID"}
    ]
