"""Every kustomization, rendered."""

import pytest
from kustomize import render

OVERLAYS = ("kind", "kind-monitoring", "gke", "gke-nfs", "kubeflow")


@pytest.fixture(scope="session")
def folder(checkout):
    """Where the manifests lie."""
    return checkout / "manifests"


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request, folder):
    """The objects of one overlay after the other."""
    return render(folder / "overlays" / request.param)


@pytest.fixture(scope="session")
def everything(folder):
    """The objects of all kustomizations and components."""
    return {path.parent: render(path.parent) for path in folder.rglob("kustomization.yaml")}
