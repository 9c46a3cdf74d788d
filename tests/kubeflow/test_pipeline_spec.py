import pytest
import yaml

from citeflow.errors import ConfigError
from citeflow.kubeflow.pipeline_spec import largest_limits, tasks, with_images, without_cache
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubeflow.submit import check_readable
from citeflow.kubernetes.job_spec import IMAGE

TEXT = PIPELINES["citation"].compiled().read_text()


def step_images(text):
    executors = next(yaml.safe_load_all(text))["deploymentSpec"]["executors"].values()
    return [executor["container"]["image"] for executor in executors]


def test_with_images_changes_nothing_but_images():
    changed = with_images(TEXT, step_image="registry.example/step@sha256:12", train_image="t:2")
    assert set(step_images(changed)) == {"registry.example/step@sha256:12"}
    assert len(step_images(changed)) == len(step_images(TEXT))
    assert "t:2" in changed
    assert IMAGE not in changed
    check_readable(changed)
    back = changed.replace("registry.example/step@sha256:12", step_images(TEXT)[0])
    back = back.replace("value: t:2", f"value: {IMAGE}")
    assert list(yaml.safe_load_all(back)) == list(yaml.safe_load_all(TEXT))


def test_with_images_needs_workers_for_their_image():
    with pytest.raises(ConfigError, match="no image for workers"):
        with_images(TEXT.replace(IMAGE, "other"), train_image="train:2")
    assert IMAGE in with_images(TEXT, train_image=IMAGE)  # the compiled one may be named


def test_without_cache_leaves_no_stage_cached():
    def cached(text):
        every = tasks(next(yaml.safe_load_all(text)))
        return [task for task in every if task.get("cachingOptions", {}).get("enableCache")]

    assert cached(TEXT)
    assert not cached(without_cache(TEXT))
    check_readable(without_cache(TEXT))


def test_largest_limits_are_those_of_any_step_that_does_not_settle_them():
    texts = []
    for cpu, memory in (("2", "8Gi"), ("16", "{{$.inputs.parameters['x']}}")):
        resources = {"resourceCpuLimit": cpu, "resourceMemoryLimit": memory}
        executors = {"exec-a": {"container": {"resources": resources}}}
        texts.append(yaml.safe_dump({"deploymentSpec": {"executors": executors}}))
    assert largest_limits(texts) == {"cpu": "16", "memory": "8Gi"}
