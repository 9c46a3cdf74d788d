"""A cluster in memory, and citeflow's way to it."""

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import sys

import pytest
from clusters import connect
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator


@pytest.fixture
def kube():
    """The API server."""
    with KubeApi() as kube:
        yield kube


@pytest.fixture
def operator(kube):
    """The training operator and the kubelet, working by themselves; pods wait for `start` and `finish`."""
    with TrainingOperator(kube, restart_delay=0.02) as operator:
        yield operator


@pytest.fixture
def api(kube):
    """Citeflow's way to the cluster."""
    api = connect(kube.url)
    yield api
    api.client.close()
    api.client.rest_client.pool_manager.clear()


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have imported everything already, and no thread of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["one_attempt"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        multiprocessing.forkserver.ensure_running()
    yield context
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.resource_tracker._resource_tracker._stop()
