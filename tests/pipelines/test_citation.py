import pytest
import yaml
from kfp import components

from citeflow.config import PRESETS, ModelConfig
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE, USER, JobSpec
from citeflow.kubernetes.launchers import LAUNCHER_NAMES

VERBS = {"download", "preprocess", "train", "evaluate", "publish"}


@pytest.fixture(scope="module")
def text(checkout):
    return (checkout / "pipelines" / "citation" / "pipeline.yaml").read_text()


@pytest.fixture(scope="module")
def spec(text):
    return next(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def platform(text):
    return list(yaml.safe_load_all(text))[1]["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]


@pytest.fixture(scope="module")
def tasks(spec):
    return spec["root"]["dag"]["tasks"]


@pytest.fixture(scope="module")
def containers(spec):
    return {
        name: executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }


def test_its_steps_are_the_five_verbs(tasks):
    assert set(tasks) == VERBS


def test_kfp_loads_it(text):
    assert components.load_component_from_text(text).name == "citation"


def test_every_step_asks_for_and_is_limited_in_cpu_and_memory(containers):
    for container in containers.values():
        wanted = {
            "resourceCpuRequest",
            "resourceCpuLimit",
            "resourceMemoryRequest",
            "resourceMemoryLimit",
        }
        assert wanted <= set(container["resources"])


def test_every_step_is_tried_again_after_growing_waits(tasks):
    for task in tasks.values():
        assert task["retryPolicy"]["maxRetryCount"] >= 1
        assert task["retryPolicy"]["backoffFactor"] > 1
        assert task["retryPolicy"]["backoffDuration"] != "0s"


def test_training_is_never_taken_from_the_cache_and_preparing_is(tasks):
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"preprocess", "evaluate"}


@pytest.mark.parametrize(
    ("step", "key"), [("preprocess", "raw_sha256"), ("evaluate", "model_sha256")]
)
def test_a_cached_step_is_keyed_by_the_digest_of_its_input(tasks, step, key):
    assert "taskOutputParameter" in tasks[step]["inputs"]["parameters"][key]


def test_the_prepared_graph_does_not_depend_on_settings_of_the_training(tasks):
    parameter = tasks["preprocess"]["inputs"]["parameters"]["settings"]["taskOutputParameter"]
    assert parameter["outputParameterKey"] == "data_resolved"


def test_every_step_mounts_the_shared_volume_where_its_data_root_is(spec, platform):
    root = spec["root"]["inputDefinitions"]["parameters"]["data_root"]["defaultValue"]
    assert len(platform) == len(VERBS)
    for executor in platform.values():
        assert [mount["mountPath"] for mount in executor["pvcMount"]] == [root]


def test_every_pod_is_labelled_with_its_verb(platform):
    labels = {
        executor["podMetadata"]["labels"]["app.kubernetes.io/component"]
        for executor in platform.values()
    }
    assert labels == VERBS


def test_no_step_installs_anything_and_all_have_the_one_image(containers):
    assert len({container["image"] for container in containers.values()}) == 1
    for container in containers.values():
        assert "pip install" not in " ".join(container["command"])
        assert "python" in container["image"]


def test_every_parameter_is_described_and_has_a_default(spec):
    for parameter in spec["root"]["inputDefinitions"]["parameters"].values():
        assert parameter["description"]
        assert "defaultValue" in parameter


def test_the_drop_downs_offer_exactly_what_the_settings_accept(spec):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["preset"]["literals"] == list(PRESETS)
    accepted = ModelConfig.__annotations__["predictor"].__args__
    assert parameters["predictor"]["literals"] == ["settings", *accepted]
    assert parameters["launcher"]["literals"] == list(LAUNCHER_NAMES)


def test_a_step_may_be_tried_again_as_long_as_a_job_may_run(tasks):
    for task in tasks.values():
        within = task["retryPolicy"]["backoffMaxDuration"]
        assert float(within.removesuffix("s")) >= 7 * 3600 * JobSpec().deadline_hours


def test_every_step_runs_as_the_user_that_owns_what_the_workers_write(platform):
    for executor in platform.values():
        assert executor["securityContext"] == {
            "runAsUser": str(USER),
            "runAsGroup": str(USER),
            "runAsNonRoot": True,
        }


def test_the_train_step_knows_its_pod_and_the_workers_image(platform, containers):
    fields = {each["name"]: each["fieldPath"] for each in platform["exec-train"]["fieldPathAsEnv"]}
    assert fields == {"CITEFLOW_POD_NAME": "metadata.name", "CITEFLOW_POD_UID": "metadata.uid"}
    assert containers["exec-train"]["env"] == [{"name": IMAGE_VARIABLE, "value": IMAGE}]


def test_nothing_secret_can_be_a_parameter(spec):
    names = set(spec["root"]["inputDefinitions"]["parameters"])
    assert not {
        name for name in names for word in ("token", "password", "secret", "key") if word in name
    }
