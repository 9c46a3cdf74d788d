import pytest
import yaml

from citeflow.experiments.study import STORAGE_VARIABLE
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all(PIPELINES["tune"].compiled().read_text()))


@pytest.fixture(scope="module")
def executors(documents):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("task", ["create-study", "train-trials", "tuning-report"])
def test_tasks_of_the_study_get_its_database_from_a_secret(executors, task):
    (secret,) = executors[f"exec-{task}"]["secretAsEnv"]
    assert secret["secretName"] == "citeflow-study"
    assert secret["keyToEnv"] == [{"secretKey": "url", "envVar": STORAGE_VARIABLE}]
    assert secret["optional"] is True


def test_train_trials_knows_its_pod_and_the_workers_image(documents, executors):
    container = documents[0]["deploymentSpec"]["executors"]["exec-train-trials"]["container"]
    assert container["env"] == [{"name": IMAGE_VARIABLE, "value": IMAGE}]
    fields = {each["name"] for each in executors["exec-train-trials"]["fieldPathAsEnv"]}
    assert fields == {"CITEFLOW_POD_NAME", "CITEFLOW_POD_UID"}
