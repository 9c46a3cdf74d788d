"""`make e2e` on a cluster in memory, and what its parts say where an old fault is put back.

No pod of it is more than processes of this machine: fakes/cluster.py.
"""

import os
import re
import subprocess
import sys

import pytest
from fakes.cluster import Cluster

PARTS = [
    "doctor",
    "storage class",
    "upload",
    "run",
    "results",
    "metrics",
    "logs",
    "tensorboard",
    "deleted worker",
    "cancelled run",
    "repeated step",
    "unschedulable",
    "out of memory",
    "image missing",
    "outage",
    "token",
]

OPTIONS = {
    "CITEFLOW_E2E_STORAGE_CLASS": "here",
    "CITEFLOW_E2E_PAPERS": "300",
    "CITEFLOW_E2E_EPOCHS": "120",
}

FAULTS = {
    "K1": ("token", "token", {"citeflow.kubeflow.connection:_keep_host": {"returns": None}}),
    "K2": (
        "run_trains or leaves_report or repeated",
        "repeated step",
        {"citeflow.attempts:RETRIES": 0},
    ),
    "K3": (
        "unschedulable",
        "unschedulable",
        {"citeflow.kubernetes.placement:Placement.gives_back": {"returns": False}},
    ),
    "K4": (
        "missing",
        "image missing",
        {"citeflow.kubeflow.watch:RunPods.error": {"returns": None}},
    ),
    "K5": ("cancelled", "cancelled run", {"e2e.steps:STARTED": {"pattern": "evaluated"}}),
    "K7": (
        "memory",
        "out of memory",
        {"citeflow.kubernetes.oom:OomKills.killed_in_vain": {"returns": ""}},
    ),
}
"""The tests to run besides the upload, the part that must fail, and what was mended."""


@pytest.fixture
def e2e(tmp_path):
    """Run e2e on a new cluster; return the state of each part that ran."""

    def run(faults=None, chosen="", minutes=10.0):
        with Cluster(tmp_path, faults=faults) as cluster:
            given = {"CITEFLOW_E2E": "1", "CITEFLOW_E2E_MINUTES": str(minutes), **OPTIONS}
            words = ["tests/e2e/test_e2e.py", "-s", "-rs", "-W", "ignore", "-p", "no:cacheprovider"]
            words += ["-k", f"upload or {chosen}"] if chosen else []
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", *words],
                env={**os.environ, **cluster.environment, **given},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        print(ended.stdout)
        assert "=== cleaned up\n" in ended.stdout
        return dict(re.findall(r"^=== ([a-z ]+): (\w+) in \d+ s$", ended.stdout, re.MULTILINE))

    return run


@pytest.mark.fault("F45", nightly=True)
def test_e2e_passes_here(e2e):
    assert e2e() == dict.fromkeys(PARTS, "ok")


@pytest.mark.fault("F45", nightly=True)
@pytest.mark.parametrize(("chosen", "part", "faults"), FAULTS.values(), ids=FAULTS)
def test_e2e_fails_with_a_fault_put_back(e2e, chosen, part, faults):
    states = e2e(faults, chosen, minutes=2.0)
    failed = [name for name, state in states.items() if state == "failed"]
    assert (states["upload"], failed) == ("ok", [part])
