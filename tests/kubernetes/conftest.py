import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import sys

import pytest
from clusters import close, connect
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

from citeflow.kubernetes.launchers import LAUNCHERS


@pytest.fixture
def kube():
    with KubeApi() as kube:
        yield kube


@pytest.fixture
def operator(kube):
    """The operator and the kubelet; pods wait for `start` and `finish`."""
    with TrainingOperator(kube, backoff=(0.1, 0.1)) as operator:
        yield operator


@pytest.fixture
def client(kube):
    client = connect(kube.url)
    yield client
    close(client)


@pytest.fixture(params=LAUNCHERS.values(), ids=LAUNCHERS)
def launcher(request):
    return request.param


@pytest.fixture(scope="module")
def processes():
    """Start processes that have imported everything already, and no thread of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["one_attempt"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        multiprocessing.forkserver.ensure_running()
    yield context
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.resource_tracker._resource_tracker._stop()
