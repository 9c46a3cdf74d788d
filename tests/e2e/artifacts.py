"""The artifacts of a run, and the figures on them.

The API of Kubeflow Pipelines 2.17 leaves `outputs` of a run's tasks empty. Which artifacts a step
makes stands in its pod, as the argument --executor_input of KFP's launcher; what became of them in
ML Metadata, which the run page reads through a proxy that speaks gRPC-Web.
"""

import itertools
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from google.protobuf import empty_pb2, unknown_fields
from kubernetes import client as k8s

from citeflow.kubernetes.client import TIMEOUT_S, Api

METHOD = "ml_metadata.MetadataStoreService/GetArtifactsByURI"
SERVICE = "metadata-envoy-service:9090"
URIS, ARTIFACTS = 2, 1
URI, PROPERTIES = 3, 5
"""Numbers of the fields of GetArtifactsByURI's request and response, and of an Artifact."""


def outputs_of(pods: Iterable[k8s.V1Pod]) -> dict[str, dict[str, str]]:
    """URIs of the artifacts that each step makes, by step and name; of the last attempt, where
    there were several."""
    found: dict[str, dict[str, str]] = {}
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp):
        values = _executor_input(pod)
        if values is not None:
            step = pod.metadata.labels["app.kubernetes.io/component"]
            named = values.get("outputs", {}).get("artifacts", {})
            found[step] = {name: entry["artifacts"][0]["uri"] for name, entry in named.items()}
    return found


def expected(text: str) -> dict[str, set[str]]:
    """Names of the artifacts of each step, as a compiled pipeline has them."""
    components = next(yaml.safe_load_all(text))["components"]
    return {
        name.removeprefix("comp-"): set(component.get("outputDefinitions", {}).get("artifacts", {}))
        for name, component in components.items()
    }


def _executor_input(pod: k8s.V1Pod) -> dict[str, Any] | None:
    for container in pod.spec.containers:
        words = [*(container.command or []), *(container.args or [])]
        for word, after in itertools.pairwise(words):
            if word == "--executor_input":
                return json.loads(after)
    return None


def figures(api: Api, uris: Iterable[str], *, namespace: str) -> dict[str, dict[str, Any]]:
    """What ML Metadata holds of artifacts, by their URIs.

    Raises: ApiException, where there is no such service, or it may not be asked."""
    message = b"".join(_field(URIS, uri.encode()) for uri in uris)
    response = api.client.call_api(
        f"/api/v1/namespaces/{namespace}/services/{SERVICE}/proxy/{METHOD}",
        "POST",
        header_params={"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"},
        body=struct.pack(">BI", 0, len(message)) + message,
        auth_settings=["BearerToken"],
        _preload_content=False,
        _return_http_data_only=True,
        _request_timeout=TIMEOUT_S,
    )
    return decoded(response.data)


def decoded(answer: bytes) -> dict[str, dict[str, Any]]:
    """The custom properties of the artifacts in an answer."""
    found = {}
    for artifact in (
        value for number, value in _fields(b"".join(_messages(answer))) if number == ARTIFACTS
    ):
        parts = list(_fields(artifact))
        uri = next(value.decode() for number, value in parts if number == URI)
        found[uri] = dict(_property(value) for number, value in parts if number == PROPERTIES)
    return found


def _messages(answer: bytes) -> Iterator[bytes]:
    """The frames of gRPC-Web without the trailers."""
    while answer:
        flags, length = struct.unpack(">BI", answer[:5])
        if not flags & 0x80:
            yield answer[5 : 5 + length]
        answer = answer[5 + length :]


def _property(entry: bytes) -> tuple[str, Any]:
    """A name and a value: an integer, a number, a text, or None for anything else."""
    parts = dict(_fields(entry))
    number, value = next(iter(_fields(parts[2])), (0, None))
    if number == 2:  # a double, of which the parser tells the bits
        value = struct.unpack("<d", struct.pack("<Q", value))[0]
    return parts[1].decode(), value.decode() if number == 3 else value if number in (1, 2) else None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    known_of_none = empty_pb2.Empty.FromString(message)
    for each in unknown_fields.UnknownFieldSet(known_of_none):
        yield each.field_number, each.data


def _field(number: int, value: bytes) -> bytes:
    length, size = b"", len(value)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def differences(
    found: Mapping[str, Mapping[str, str]], wanted: Mapping[str, set[str]]
) -> dict[str, set[str]]:
    """Artifacts of each step that are missing."""
    lacking = {step: names - set(found.get(step, {})) for step, names in wanted.items()}
    return {step: names for step, names in lacking.items() if names}
