"""Renders what the manifests use of kustomize, and refuses the rest, so that tests need no binary."""

import copy
from pathlib import Path

import yaml

CLUSTER_SCOPED = {"Namespace", "PersistentVolume", "StorageClass"}
KEYS = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "configMapGenerator",
    "images",
    "patches",
    "replacements",
}


def render(folder: Path) -> list[dict]:
    """The objects of a kustomization or of a component."""
    what = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(what) <= KEYS, f"{folder}: {set(what) - KEYS}"
    objects = [thing for name in what.get("resources", []) for thing in _resource(folder / name)]
    objects += [_config_map(folder, entry) for entry in what.get("configMapGenerator", [])]
    objects += [thing for name in what.get("components", []) for thing in render(folder / name)]
    for patch in what.get("patches", []):
        _patch(objects, patch)
    if namespace := what.get("namespace"):
        _move(objects, namespace)
    for image in what.get("images", []):
        _replace_image(objects, image)
    for replacement in what.get("replacements", []):
        _replace(objects, replacement)
    return objects


def _resource(path: Path) -> list[dict]:
    return (
        render(path)
        if path.is_dir()
        else [thing for thing in yaml.safe_load_all(path.read_text()) if thing]
    )


def _config_map(folder: Path, entry: dict) -> dict:
    options = entry["options"]
    assert options["disableNameSuffixHash"] is True
    metadata = {"name": entry["name"], "labels": options["labels"]}
    data = {name: (folder / name).read_text() for name in entry["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _patch(objects: list[dict], patch: dict) -> None:
    found = _selected(objects, patch["target"])
    assert found, f"a patch without a target: {patch['target']}"
    for thing in found:
        for step in yaml.safe_load(patch["patch"]):
            _apply(thing, **step)


def _apply(thing: dict, op: str, path: str, value: object = None) -> None:
    *parents, last = path.strip("/").split("/")
    place = _walk(thing, parents)
    key = int(last) if isinstance(place, list) else last
    assert op == "add" or (key in place if isinstance(place, dict) else key < len(place)), (
        f"nothing at {path}"
    )
    if op == "remove":
        del place[key]
    else:
        assert op in ("add", "replace")
        assert isinstance(place, dict) or op == "replace"
        place[key] = copy.deepcopy(value)


def _walk(thing: object, steps: list[str]) -> object:
    for step in steps:
        thing = thing[int(step) if isinstance(thing, list) else step]
    return thing


def _move(objects: list[dict], namespace: str) -> None:
    """Give a namespace to all objects, and to those subjects of bindings that are among them."""
    accounts = {thing["metadata"]["name"] for thing in objects if thing["kind"] == "ServiceAccount"}
    for thing in objects:
        if thing["kind"] == "Namespace":
            thing["metadata"]["name"] = namespace
        elif thing["kind"] not in CLUSTER_SCOPED:
            thing["metadata"]["namespace"] = namespace
        for subject in thing.get("subjects", []):
            if subject["name"] in accounts:
                subject["namespace"] = namespace


def _replace_image(objects: list[dict], image: dict) -> None:
    assert set(image) <= {"name", "newName", "newTag", "digest"}
    for container in (container for thing in objects for container in containers(thing)):
        name, tag, digest = split_image(container["image"])
        if name != image["name"]:
            continue
        if "newTag" in image or "digest" in image:
            tag, digest = str(image.get("newTag", "")), image.get("digest", "")
        suffix = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
        container["image"] = image.get("newName", name) + suffix


def split_image(image: str) -> tuple[str, str, str]:
    """Name, tag and digest of an image; a port belongs to the name."""
    rest, _, digest = image.partition("@")
    folder, slash, last = rest.rpartition("/")
    base, _, tag = last.partition(":")
    return folder + slash + base, tag, digest


def pod_template(thing: dict) -> dict | None:
    """The pod (metadata and spec) that an object makes."""
    spec = thing.get("spec", {})
    if thing["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return thing if thing["kind"] == "Pod" else spec.get("template")


def containers(thing: dict) -> list[dict]:
    """All containers of the pod that an object makes."""
    spec = (pod_template(thing) or {}).get("spec", {})
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def _replace(objects: list[dict], replacement: dict) -> None:
    source = replacement["source"]
    (origin,) = _selected(objects, {key: source[key] for key in ("kind", "name")})
    value = _walk(origin, source["fieldPath"].split("."))
    for target in replacement["targets"]:
        found = _selected(objects, target["select"])
        assert found, f"a replacement without a target: {target}"
        for thing in found:
            for path in target["fieldPaths"]:
                *parents, last = path.split(".")
                _walk(thing, parents)[last] = value


def _selected(objects: list[dict], target: dict) -> list[dict]:
    assert set(target) <= {"kind", "name"}
    return [
        thing
        for thing in objects
        if thing["kind"] == target["kind"]
        and target.get("name") in (None, thing["metadata"]["name"])
    ]
