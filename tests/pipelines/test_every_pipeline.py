import pytest
import yaml
from kfp import components

from citeflow.kubeflow import submit
from citeflow.kubeflow.pipeline_spec import tasks
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes.job_spec import USER
from citeflow.kubernetes.launchers import LAUNCHER_NAMES
from citeflow.reporting.links import CONFIG_MAP

FOLDERS = ("components", "pipelines")


@pytest.fixture(scope="module", params=PIPELINES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def text(name):
    return PIPELINES[name].compiled().read_text()


@pytest.fixture(scope="module")
def spec(text):
    return next(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def steps(spec):
    """The tasks that run a container."""
    found = [
        task
        for task in tasks(spec)
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    ]
    assert found
    return found


def test_the_names_are_the_folders(checkout):
    assert set(PIPELINES) == {path.parent.name for path in checkout.glob("pipelines/*/pipeline.py")}


def test_kfp_loads_it(name, text):
    assert components.load_component_from_text(text).name == name


def test_it_can_be_submitted_as_it_is(name):
    planned = submit.plan({}, submit.Package(pipeline=name))
    assert (planned.pipeline, planned.run_name.startswith(name)) == (
        name,
        "dataset" not in planned.parameters,
    )


def test_every_parameter_is_described(spec):
    text = spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, entry in text.items() if not entry.get("description")] == []


def test_the_form_offers_every_launcher(spec):
    launcher = spec["root"]["inputDefinitions"]["parameters"].get("launcher")
    assert launcher is None or launcher["literals"] == list(LAUNCHER_NAMES)


def test_every_step_is_tried_again_and_says_what_it_needs(spec, steps):
    for step in steps:
        assert step["retryPolicy"]["maxRetryCount"] >= 1, step["taskInfo"]
    wanted = {
        "resourceCpuRequest",
        "resourceCpuLimit",
        "resourceMemoryRequest",
        "resourceMemoryLimit",
    }
    for executor in spec["deploymentSpec"]["executors"].values():
        assert wanted <= set(executor["container"]["resources"])


def test_every_step_runs_as_the_user_of_the_volume_with_the_label_of_its_verb(text, spec):
    placed = list(yaml.safe_load_all(text))[1]["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]
    assert placed.keys() == spec["deploymentSpec"]["executors"].keys()
    for executor in placed.values():
        assert executor["securityContext"] == {
            "runAsUser": str(USER),
            "runAsGroup": str(USER),
            "runAsNonRoot": True,
        }
        assert executor["podMetadata"]["labels"]["app.kubernetes.io/component"]


def test_experiments_have_few_steps(name, steps):
    """Each costs 20 s of its own; there were four, and three for each of nine trainings."""
    assert len(steps) == {"citation": 6, "images": 6, "compare": 5, "scaling": 5, "tune": 7}[name]


def test_training_is_never_taken_from_the_cache(steps):
    for step in steps:
        if step["componentRef"]["name"].startswith("comp-train"):
            assert not step["cachingOptions"].get("enableCache")


def test_the_first_step_alone_decides_what_auto_means(steps):
    """Another attempt of a later one might decide otherwise."""
    sources = {
        step["taskInfo"]["name"]: step["inputs"]["parameters"]["launcher"]
        for step in steps
        if "launcher" in step["inputs"]["parameters"]
    }
    assert sources.pop("Download") == {"componentInputParameter": "launcher"}
    settled = {"outputParameterKey": "launcher", "producerTask": "download"}
    item = 'parseJson(string_value)["launcher"]'
    for source in sources.values():
        is_item = source.get("parameterExpressionSelector") == item
        assert is_item or source == {"taskOutputParameter": settled}


def test_steps_that_hold_the_graph_have_memory_as_large_as_the_dataset(spec):
    executors = spec["deploymentSpec"]["executors"]
    holders = {"preprocess", "train", "evaluate", "run-trials", "train-trials"}
    for name in holders & {label.removeprefix("exec-") for label in executors}:
        resources = executors[f"exec-{name}"]["container"]["resources"]
        assert "download-memory'" in resources["resourceMemoryRequest"], name
        assert "download-memory_limit'" in resources["resourceMemoryLimit"], name


def test_a_loop_takes_no_parameter_from_another_step_but_its_items(spec):
    """kfp.local would put the item in the place of each; memory it ignores."""
    ignored = {"pipelinechannel--download-memory", "pipelinechannel--download-memory_limit"}
    for task in tasks(spec):
        if "parameterIterator" in task:
            items = task["parameterIterator"]["items"].get("inputParameter")
            parameters = task.get("inputs", {}).get("parameters", {})
            made = {name for name, value in parameters.items() if "taskOutputParameter" in value}
            assert made - ignored <= {items}, task["taskInfo"]


def test_steps_that_write_a_summary_know_the_links_of_the_run_page(text, spec):
    placed = list(yaml.safe_load_all(text))[1]["platforms"]["kubernetes"]["deploymentSpec"]
    for name, component in spec["components"].items():
        outputs = component.get("outputDefinitions", {}).get("artifacts", {}).values()
        if any(each["artifactType"]["schemaTitle"] == "system.Markdown" for each in outputs):
            sources = placed["executors"][name.replace("comp-", "exec-", 1)]["configMapAsEnv"]
            assert CONFIG_MAP in [source["configMapName"] for source in sources], name


def test_nothing_secret_can_be_a_parameter(spec):
    names = set(spec["root"]["inputDefinitions"]["parameters"])
    assert not {
        name for name in names for word in ("token", "password", "secret", "url") if word in name
    }


def test_every_asset_has_metadata_of_the_catalogue_s_form(checkout):
    definitions = [path for folder in FOLDERS for path in checkout.glob(f"{folder}/*/[cp]*.py")]
    assert len(definitions) > len(PIPELINES)
    for definition in definitions:
        metadata = yaml.safe_load((definition.parent / "metadata.yaml").read_text())
        assert metadata["name"] == definition.parent.name
        assert metadata["stability"] in {"alpha", "beta", "stable"}
        assert metadata["dependencies"]["kubeflow"][0]["name"] == "Pipelines"
        assert metadata["tags"]
        assert metadata["lastVerified"].tzinfo is not None
