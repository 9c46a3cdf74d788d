"""Check the server of Kubeflow Pipelines."""

import re
from collections.abc import Callable, Iterator

from citeflow.doctor import Finding, Status, expect
from citeflow.errors import CiteflowError
from citeflow.kubeflow.calls import RawApi, call
from citeflow.kubeflow.client import KfpClient

NEEDED = (2, 16)
CHECKED = (2, 17)
"""Newest version that citeflow was tried with."""

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
    """Check the version of the server, which it or its UI reports."""
    what = f"version of {SERVER}"
    table = "docs/versions.md says what was checked for each version"
    health = call(RawApi(client.kfp).get, "/apis/v2beta1/healthz") or {}
    tag = str(health.get("tag_name") or health.get("apiServerTagName") or "")
    found = re.match(r"v?(\d+)\.(\d+)", tag)
    if not found:
        value = f"unknown ({tag or 'no tag'})"
        return Finding(status="note", what=what, value=value, hint=f"2.16 is needed; {table}")
    version = (int(found[1]), int(found[2]))
    if version > CHECKED:
        return Finding(status="note", what=what, value=f"{tag}, newer than any tried", hint=table)
    hint = "2.16 or newer is needed: older servers do not know all fields of the pipelines"
    return expect(version >= NEEDED, what, tag, hint, otherwise="warning")


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


def _failed(error: CiteflowError, status: Status) -> Finding:
    value = f"{error.what}: {error.value}" if error.value else error.what
    return Finding(status=status, what=SERVER, value=value, hint=error.hint)
