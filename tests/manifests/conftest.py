"""Every kustomization, rendered once."""

import functools

import kustomize
import pytest

OVERLAYS = ("kind", "kind-monitoring", "gke", "gke-nfs", "kubeflow")


@pytest.fixture(scope="session")
def folder(checkout):
    return checkout / "manifests"


@pytest.fixture(scope="session")
def render():
    """Render a folder, once."""
    return functools.cache(kustomize.render)


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request, folder, render):
    """The objects of one overlay after the other."""
    return render(folder / "overlays" / request.param)


@pytest.fixture(scope="session")
def everything(folder, render):
    """The objects of all kustomizations and components."""
    return {path.parent: render(path.parent) for path in folder.rglob("kustomization.yaml")}
