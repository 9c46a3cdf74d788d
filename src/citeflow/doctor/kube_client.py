"""Run the checks of a cluster: each asks once, within a time limit; a failure is a finding."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes import client as k8s

from citeflow.doctor import Finding
from citeflow.kubernetes.client import CONNECTION_ERRORS, TIMEOUT_S, KubeClient, to_refusal
from citeflow.kubernetes.launchers import Launcher


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A namespace of a cluster, and the kind of job that is launched there."""

    client: KubeClient
    launcher: Launcher
    service_account: str = ""
    """Account that the steps run as; the user, if empty."""

    @property
    def namespace(self) -> str:
        """Name of the namespace."""
        return self.client.namespace

    @property
    def core(self) -> k8s.CoreV1Api:
        """The core API."""
        return k8s.CoreV1Api(self.client.api)

    def read(self, call: Callable[..., Any], *args: object) -> Any:
        """Call a method of the kubernetes package; None for an object that there is not.

        Raises:
            ApiException: the server refuses.
            HTTPError, HTTPException, OSError: it does not answer.
        """
        try:
            return call(*args, _request_timeout=TIMEOUT_S)
        except k8s.ApiException as error:
            if error.status == 404:
                return None
            raise


def controller_version(cluster: Cluster, name: str) -> tuple[int, ...]:
    """Return the version of the newest controller of a name by its image's tag; empty if unknown.

    Args:
        cluster: any of its namespaces may have the controller.
        name: its label app.kubernetes.io/name.
    """
    api = k8s.AppsV1Api(cluster.client.api)
    selector = f"app.kubernetes.io/name={name}"
    call = functools.partial(api.list_deployment_for_all_namespaces, label_selector=selector)
    images = [
        container.image
        for each in cluster.read(call).items
        for container in each.spec.template.spec.containers
    ]
    tags = [re.search(r":v?(\d+)\.(\d+)\.(\d+)$", image) for image in images]
    return max((tuple(map(int, tag.groups())) for tag in tags if tag), default=())


Check = Callable[[Cluster], Iterator[Finding]]


def run_check(cluster: Cluster, what: str, check: Check) -> Iterator[Finding]:
    """Yield the findings of a check, and a warning where the server does not let it finish."""
    try:
        yield from check(cluster)
    except k8s.ApiException as error:
        refusal = to_refusal(error, cluster.namespace)
        hint = "try again later" if error.status else refusal.hint
        if error.status in (401, 403):
            hint = "ask somebody who may, or run doctor with another kubeconfig"
        yield _unknown(what, f"could not be looked at: {refusal.value}", hint)
    except CONNECTION_ERRORS as error:
        hint = "is the server of the kubeconfig the right one?"
        yield _unknown(what, f"no answer: {type(error).__name__}", hint)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        hint = "does a Kubernetes API answer there?"
        yield _unknown(what, f"not understood: {error!r}", hint)


def _unknown(what: str, value: str, hint: str) -> Finding:
    return Finding(status="warning", what=what, value=value, hint=hint)
