"""Plain requests to the Kubernetes API: asked once, within a limit; what goes wrong is a finding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import urllib3
from kubernetes import client as k8s

from citeflow.doctor import Finding
from citeflow.kubernetes.client import TIMEOUT_S, Api, refusal

Json = dict[str, Any]
Check = Callable[["Cluster"], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A namespace that is looked at."""

    api: Api
    launcher: str
    service_account: str = ""

    @property
    def namespace(self) -> str:
        """Name of the namespace."""
        return self.api.namespace

    def get(self, path: str) -> Json | None:
        """What the server has at a path, or None.

        Raises:
            ApiException, HTTPError: it refuses, or does not answer.
        """
        try:
            return self._call("GET", path)
        except k8s.ApiException as error:
            if error.status == 404:
                return None
            raise

    def mine(self, plural: str, name: str = "", *, group: str = "") -> Json | None:
        """An object of the namespace, or all of a kind; as `get`."""
        root = f"/apis/{group}" if group else "/api/v1"
        return self.get(
            f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")
        )

    def review(self, kind: str, spec: Json) -> bool:
        """Whether the server says that something is allowed; as `get`."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        answer = self._call("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", body)
        return bool(answer["status"]["allowed"])

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        answer: Json = self.api.client.call_api(
            path,
            method,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=TIMEOUT_S,
        )
        return answer


def findings(cluster: Cluster, what: str, check: Check) -> Iterator[Finding]:
    """Those of a check; where the server refuses or does not answer, that is one."""
    try:
        yield from check(cluster)
    except k8s.ApiException as error:
        told = refusal(error, cluster.namespace)
        yield Finding(
            status="warning",
            what=what,
            value=f"could not be looked at: {told.value}",
            hint=_hint(error),
        )
    except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
        value = f"no answer: {type(error).__name__}"
        yield Finding(
            status="warning",
            what=what,
            value=value,
            hint="is the server of the kubeconfig the right one?",
        )
    except (KeyError, TypeError, ValueError) as error:
        value = f"not understood: {error!r}"
        yield Finding(
            status="warning", what=what, value=value, hint="does a Kubernetes API answer there?"
        )


def _hint(error: k8s.ApiException) -> str:
    if error.status in (401, 403):
        return "ask somebody who may, or run doctor with another kubeconfig"
    return "try again later"
