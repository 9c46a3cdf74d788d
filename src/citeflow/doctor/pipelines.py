"""Checks of the server of Kubeflow Pipelines."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from citeflow.doctor import Finding, expect
from citeflow.errors import CiteflowError, NotFoundError
from citeflow.kubeflow import api
from citeflow.kubeflow.client import Server

NEEDED = (2, 17)
PIPELINE = "citation"


def check(connect: Callable[[], Server]) -> Iterator[Finding]:
    """Whether it answers, is new enough, and has the pipeline."""
    try:
        server = connect()
    except CiteflowError as error:
        yield _told(error, "missing")
        return
    where = f"several users, namespace {server.namespace}" if server.namespace else "one user"
    yield Finding(status="ok", what="Kubeflow Pipelines", value=f"answers; {where}")
    for each in (_version, _pipeline):
        try:
            yield each(server)
        except CiteflowError as error:
            yield _told(error, "warning")


def _told(error: CiteflowError, status: Any) -> Finding:
    value = f"{error.what}: {error.value}" if error.value else error.what
    return Finding(status=status, what="Kubeflow Pipelines", value=value, hint=error.hint)


def _version(server: Server) -> Finding:
    """The version, which only the older of the two APIs tells."""
    health = server.client.healthzs
    try:
        tag = str((api.ask(_Old(health.api_client).healthz) or {}).get("tag_name", ""))
    except CiteflowError:
        tag = ""
    found = re.match(r"v?(\d+)\.(\d+)", tag)
    if not found:
        value = f"not told ({tag or 'no tag'})"
        return Finding(
            status="note",
            what="version of Kubeflow Pipelines",
            value=value,
            hint="2.17 or newer is needed",
        )
    is_new = (int(found[1]), int(found[2])) >= NEEDED
    return expect(
        is_new, "version of Kubeflow Pipelines", tag, "2.17 or newer is needed", otherwise="warning"
    )


class _Old:
    """The API v1beta1, of which the generated client knows nothing."""

    def __init__(self, api_client: Any) -> None:
        self.api_client = api_client

    def healthz(self, _request_timeout: Any) -> Any:
        return self.api_client.call_api(
            "/apis/v1beta1/healthz",
            "GET",
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            _request_timeout=_request_timeout,
        )


def _pipeline(server: Server) -> Finding:
    what = f"pipeline {PIPELINE}"
    space: dict[str, Any] = {"namespace": server.namespace} if server.namespace else {}
    calls = server.client.pipelines
    try:
        found = api.ask(calls.pipeline_service_get_pipeline_by_name, PIPELINE, **space)
    except NotFoundError:
        hint = "`citeflow submit --upload-only`, or `citeflow submit`, which uploads it before it runs it"
        return Finding(status="note", what=what, value="not uploaded", hint=hint)
    listed = api.ask(
        calls.pipeline_service_list_pipeline_versions,
        found.pipeline_id,
        sort_by="created_at desc",
        page_size=1,
    )
    newest = (listed.pipeline_versions or [None])[0]
    value = newest.display_name if newest else "has no version"
    return expect(
        newest is not None, what, value, "`citeflow submit --upload-only`", otherwise="warning"
    )
