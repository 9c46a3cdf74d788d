import pytest
import yaml

from citeflow.config import PRESETS
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE, JobSpec

STAGES = {"download", "preprocess", "train", "evaluate", "publish", "index"}


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all(PIPELINES["citation"].compiled().read_text()))


@pytest.fixture(scope="module")
def spec(documents):
    return documents[0]


@pytest.fixture(scope="module")
def platform(documents):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def branch(spec):
    """The branch that deploys, as a task."""
    return spec["root"]["dag"]["tasks"]["condition-1"]


@pytest.fixture(scope="module")
def tasks(spec, branch):
    """The tasks that run a container, that of the branch last."""
    plain = [item for item in spec["root"]["dag"]["tasks"].items() if item[1] is not branch]
    return {**dict(plain), **spec["components"][branch["componentRef"]["name"]]["dag"]["tasks"]}


@pytest.fixture(scope="module")
def containers(spec):
    executors = spec["deploymentSpec"]["executors"]
    return {name: executor["container"] for name, executor in executors.items()}


def test_model_is_deployed_only_to_a_named_service_once_it_is_evaluated(spec, branch):
    assert spec["root"]["inputDefinitions"]["parameters"]["deploy"]["defaultValue"] == ""
    assert branch["triggerPolicy"]["condition"].endswith("['pipelinechannel--deploy'] != ''")
    assert "evaluate" in branch["dependentTasks"]


def test_tasks_are_the_six_stages(tasks, platform):
    labels = {
        executor["podMetadata"]["labels"]["app.kubernetes.io/component"]
        for executor in platform.values()
    }
    assert set(tasks) == labels == STAGES


def test_tasks_are_retried_after_growing_waits(tasks):
    for task in tasks.values():
        policy = task["retryPolicy"]
        assert policy["backoffFactor"] > 1
        assert policy["backoffDuration"] != "0s"
        within = float(policy["backoffMaxDuration"].removesuffix("s"))
        assert within >= 7 * 3600 * JobSpec().deadline_hours


def test_training_is_never_cached_and_preparing_is(tasks):
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"preprocess", "evaluate"}


@pytest.mark.parametrize(
    ("task", "key"), [("preprocess", "raw_sha256"), ("evaluate", "model_sha256")]
)
def test_cached_task_is_keyed_by_the_digest_of_its_input(tasks, task, key):
    assert "taskOutputParameter" in tasks[task]["inputs"]["parameters"][key]


def test_preprocess_does_not_depend_on_settings_of_the_training(tasks):
    parameter = tasks["preprocess"]["inputs"]["parameters"]["settings"]["taskOutputParameter"]
    assert parameter["outputParameterKey"] == "data_resolved"


def test_tasks_mount_the_shared_volume_at_their_data_root(spec, platform):
    root = spec["root"]["inputDefinitions"]["parameters"]["data_root"]["defaultValue"]
    for executor in platform.values():
        assert [mount["mountPath"] for mount in executor["pvcMount"]] == [root]


def test_tasks_install_nothing_and_share_one_image(containers):
    assert len({container["image"] for container in containers.values()}) == 1
    for container in containers.values():
        assert "pip install" not in " ".join(container["command"])


def test_form_offers_what_the_settings_accept(spec):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert all("defaultValue" in parameter for parameter in parameters.values())
    assert parameters["preset"]["literals"] == list(PRESETS)
    assert parameters["predictor"]["literals"] == ["from-settings", "dot", "mlp", "structural"]


def test_train_knows_its_pod_and_the_workers_image(platform, containers):
    fields = {each["name"]: each["fieldPath"] for each in platform["exec-train"]["fieldPathAsEnv"]}
    assert fields == {"CITEFLOW_POD_NAME": "metadata.name", "CITEFLOW_POD_UID": "metadata.uid"}
    assert containers["exec-train"]["env"] == [{"name": IMAGE_VARIABLE, "value": IMAGE}]
