"""Check the server of Kubeflow Pipelines."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from citeflow.doctor import Finding, Status, expect
from citeflow.errors import CiteflowError
from citeflow.kubeflow.calls import call
from citeflow.kubeflow.client import KfpClient

NEEDED = (2, 17)
PIPELINE = "citation"
SERVER = "Kubeflow Pipelines"


def check(connect: Callable[[], KfpClient]) -> Iterator[Finding]:
    """Check that the server answers, is new enough, and has the pipeline."""
    try:
        client = connect()
    except CiteflowError as error:
        yield _failed(error, "missing")
        return
    users = f"several users, namespace {client.namespace}" if client.namespace else "one user"
    yield Finding(status="ok", what=SERVER, value=f"answers; {users}")
    for each in (check_version, check_pipeline):
        try:
            yield each(client)
        except CiteflowError as error:
            yield _failed(error, "warning")


def check_version(client: KfpClient) -> Finding:
    """Check the version of the server, which only its API v1beta1 reports."""
    what = f"version of {SERVER}"
    hint = "2.17 or newer is needed"
    try:
        health = call(_V1Beta1Api(client.kfp.healthzs.api_client).healthz)
        tag = str((health or {}).get("tag_name", ""))
    except CiteflowError:
        tag = ""
    version = re.match(r"v?(\d+)\.(\d+)", tag)
    if not version:
        value = f"unknown ({tag or 'no tag'})"
        return Finding(status="note", what=what, value=value, hint=hint)
    is_new = (int(version[1]), int(version[2])) >= NEEDED
    return expect(is_new, what, tag, hint, otherwise="warning")


def check_pipeline(client: KfpClient) -> Finding:
    """Check that the pipeline was uploaded."""
    what = f"pipeline {PIPELINE}"
    upload = "`citeflow submit --upload-only`"
    pipeline = client.find_pipeline(PIPELINE)
    if pipeline is None:
        hint = f"{upload}, or `citeflow submit`, which uploads it before it runs it"
        return Finding(status="note", what=what, value="not uploaded", hint=hint)
    newest = client.newest_version(pipeline.pipeline_id)
    value = newest.display_name if newest else "has no version"
    return expect(newest is not None, what, value, upload, otherwise="warning")


class _V1Beta1Api:
    """The one method of the API v1beta1 that is needed: the generated client has none of it."""

    def __init__(self, api_client: Any) -> None:
        self.api_client = api_client

    def healthz(self, **options: Any) -> Any:
        return self.api_client.call_api(
            "/apis/v1beta1/healthz",
            "GET",
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            **options,
        )


def _failed(error: CiteflowError, status: Status) -> Finding:
    value = f"{error.what}: {error.value}" if error.value else error.what
    return Finding(status=status, what=SERVER, value=value, hint=error.hint)
