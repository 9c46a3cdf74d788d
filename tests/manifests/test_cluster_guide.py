import json
import re

import pytest
import yaml
from kustomize import containers, render_text


@pytest.fixture(scope="module")
def guide(checkout):
    return (checkout / "docs" / "cluster.md").read_text()


@pytest.fixture
def blocks(guide):
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.S)]


def rendered(folder, tmp_path, said):
    objects = render_text(tmp_path, {**said, "resources": [folder / "overlays" / "gke"]})
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects}


def test_guides_name_existing_files_and_every_overlay(checkout, folder, guide):
    pages = guide + (checkout / "docs" / "gke.md").read_text()
    names = set(re.findall(r"(?<![-\w./])manifests/[-\w/.]*[\w]", pages))
    names -= {"manifests/overlays"}  # followed by $OVERLAY
    assert names
    assert [name for name in names if not (checkout / name).exists()] == []
    for overlay in (folder / "overlays").iterdir():
        assert f"manifests/overlays/{overlay.name}" in names


def test_guide_names_existing_objects(everything, guide):
    names = {thing["metadata"]["name"] for objects in everything.values() for thing in objects}
    told = set(re.findall(r"(?<![-\w/.])citeflow-[a-z]+(?![-\w.])", guide))
    images = {f"citeflow-{name}" for name in ("step", "train", "small", "tensorboard")}
    assert told - names - images - {"citeflow-nodes"} == set()


def test_guide_example_changes_images_and_storage_class(folder, tmp_path, blocks):
    objects = rendered(folder, tmp_path, blocks[0])
    assert (
        objects["PersistentVolumeClaim", "citeflow-data"]["spec"]["storageClassName"] == "zonal-rwx"
    )
    images = {part["image"] for thing in objects.values() for part in containers(thing)}
    assert {image.partition("-docker.pkg.dev/")[0] for image in images if "citeflow" in image} == {
        "europe-west1"
    }


def test_guide_example_of_a_node_port_opens_nginx_only(folder, tmp_path, blocks):
    plain, opened = (rendered(folder, tmp_path, said) for said in ({}, blocks[1]))
    changed = {key for key in plain if plain[key] != opened[key]}
    assert changed == {("Service", "citeflow-web"), ("NetworkPolicy", "citeflow-web")}
    assert opened["Service", "citeflow-web"]["spec"]["type"] == "NodePort"
    (rule,) = opened["NetworkPolicy", "citeflow-web"]["spec"]["ingress"]
    assert set(rule) == {"ports"}


def test_guide_example_labels_monitor_and_alerts(folder, tmp_path, blocks):
    said = {**blocks[2], "resources": [folder / "overlays" / "kind-monitoring"]}
    labelled = {
        thing["kind"]
        for thing in render_text(tmp_path, said)
        if thing["metadata"].get("labels", {}).get("release") == "kube-prometheus-stack"
    }
    assert labelled == {"PodMonitor", "PrometheusRule"}


def leaves(thing):
    if isinstance(thing, dict | list):
        for value in thing.values() if isinstance(thing, dict) else thing:
            yield from leaves(value)
    else:
        yield str(thing)


def test_debugging_shows_what_was_recorded(checkout):
    recordings = checkout.parent / "shared" / "recordings"
    if not recordings.is_dir():
        pytest.skip("the recordings of a real cluster are not here")
    recorded = {
        " ".join(text.split())
        for path in recordings.glob("*.json")
        for text in leaves(json.loads(path.read_text()))
    }
    page = (checkout / "docs" / "debugging.md").read_text()
    shown = [
        cell
        for block in re.findall(r"```text\n(.*?)```", page, re.S)
        for line in block.splitlines()
        for cell in re.split(r"  +|=", line)
    ]
    assert len(shown) > 40
    for cell in set(shown) - {"<none>", ""}:
        begin = cell.removesuffix("...").strip()
        assert any(text.startswith(begin) for text in recorded), cell


def test_guide_example_schedules_the_pods_of_trainjobs_together(folder, tmp_path, blocks):
    (example,) = (each for each in blocks if each.get("resources") == ["../manifests/trainer"])
    said = {**example, "resources": [folder / "trainer"]}
    (runtime,) = render_text(tmp_path, said)
    assert runtime["spec"]["podGroupPolicy"]["coscheduling"]["scheduleTimeoutSeconds"] == 600
