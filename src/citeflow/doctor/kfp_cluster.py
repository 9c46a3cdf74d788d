"""Check what is set on the cluster for Kubeflow Pipelines and its run page."""

from collections.abc import Iterator
from typing import Any

import yaml
from kubernetes import client as k8s

from citeflow.doctor import Finding
from citeflow.doctor.kube_client import Cluster
from citeflow.kubeflow.connection import STANDALONE
from citeflow.reporting.links import CONFIG_MAP, VARIABLES
from citeflow.utils.logging import redact_url

CONTROLLER = "workflow-controller-configmap"

RETRIES = {
    "OnError": "Argo repeats lost pods only; crashed steps are repeated by the step itself",
    "OnFailure": "Argo repeats crashed steps, but no lost pods",
    "OnTransientError": "Argo repeats neither; crashed steps are repeated by the step itself",
    "Always": "Argo repeats crashed steps and lost pods",
}
"""Retry policies of Argo, and what they mean for a step."""

DEFAULT_POLICY = "OnFailure"
"""Argo's, where nothing is set."""


def check_workflows(cluster: Cluster) -> Iterator[Finding]:
    """Note what Argo does with a step that ends badly, and with a run that has ended."""
    try:
        call = cluster.core.read_namespaced_config_map
        found = cluster.read(call, CONTROLLER, STANDALONE)
    except k8s.ApiException as error:
        if error.status != 403:
            raise
        hint = f"kubectl -n {STANDALONE} get configmap {CONTROLLER} -o yaml, with more rights"
        value = f"you may not read {CONTROLLER} in {STANDALONE}"
        yield Finding(status="note", what="retries", value=value, hint=hint)
        return
    if found is None:
        value = f"not known: no {CONTROLLER} in {STANDALONE}"
        yield Finding(status="note", what="retries", value=value)
        return
    spec = _defaults(found.data or {})
    strategy = _part(spec, "templateDefaults", "retryStrategy")
    policy = str(strategy.get("retryPolicy") or DEFAULT_POLICY)
    value = f"{policy}: {RETRIES.get(policy, 'not known')}"
    loses = policy in ("OnFailure", "OnTransientError")
    hint = "a node that goes ends a run; submit it again with the same run name" if loses else ""
    yield Finding(status="warning" if loses else "note", what="retries", value=value, hint=hint)
    if seconds := _part(spec, "ttlStrategy").get("secondsAfterCompletion"):
        value = f"deleted {seconds} s after its end, with its pods, their logs and its jobs"
        yield Finding(status="note", what="a run's workflow", value=value)


def check_links(cluster: Cluster) -> Iterator[Finding]:
    """Show the addresses that the run page links to."""
    call = cluster.core.read_namespaced_config_map
    found = cluster.read(call, CONFIG_MAP, cluster.namespace)
    data = (found.data or {}) if found else {}
    shown = [
        f"{name} {redact_url(data[variable])}"
        for variable, name in VARIABLES.items()
        if variable in data
    ]
    value = ", ".join(shown) or f"none: no ConfigMap {CONFIG_MAP}"
    hint = "" if shown else "docs/dashboard.md: links to TensorBoard, reports and MLflow"
    yield Finding(status="note", what="links of the run page", value=value, hint=hint)


def _defaults(data: dict[str, str]) -> dict[str, Any]:
    """Return the defaults of a workflow's spec: a key of their own, or a part of `config`."""
    config = yaml.safe_load(data.get("config", "")) or {}
    text = data.get("workflowDefaults", "")
    return _part(yaml.safe_load(text) or _part(config, "workflowDefaults"), "spec")


def _part(values: dict[str, Any], *path: str) -> dict[str, Any]:
    for key in path:
        values = values.get(key) or {}
    return values
