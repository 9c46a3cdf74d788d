"""Every kustomization, rendered once."""

import functools

import kustomize
import pytest

OVERLAYS = ("kind", "kind-monitoring", "gke", "gke-nfs", "kubeflow")
WITH_SERVER = {
    "kind and serving": "serving",
    "kind and serving-kserve": "serving-kserve",
    "kind and mlflow": "mlflow",
}
"""The overlay kind with a component more, as docs/serving-cluster.md and docs/cluster.md show."""


@pytest.fixture(scope="session")
def folder(checkout):
    return checkout / "manifests"


@pytest.fixture(scope="session")
def render():
    """Render a folder, once."""
    return functools.cache(kustomize.render)


@pytest.fixture(scope="session", params=[*OVERLAYS, *WITH_SERVER])
def overlay(request, folder, render, tmp_path_factory):
    """The objects of one overlay after the other."""
    if request.param not in WITH_SERVER:
        return render(folder / "overlays" / request.param)
    said = {
        "namespace": "kubeflow",
        "resources": [folder / "overlays" / "kind"],
        "components": [folder / "components" / WITH_SERVER[request.param]],
    }
    return kustomize.render_text(tmp_path_factory.mktemp("overlay"), said)


@pytest.fixture(scope="session")
def everything(folder, render):
    """The objects of all kustomizations and components."""
    return {path.parent: render(path.parent) for path in folder.rglob("kustomization.yaml")}
