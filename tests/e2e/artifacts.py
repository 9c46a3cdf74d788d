"""The artifacts of a run, and the figures on them.

The API of Kubeflow Pipelines 2.17 leaves `outputs` of a run's tasks empty. A step's artifacts are
in the argument --executor_input of its pod, their figures in ML Metadata, which the run page reads
through a proxy that speaks gRPC-Web.
"""

import itertools
import json
import struct

import yaml
from google.protobuf import empty_pb2, unknown_fields

from citeflow.kubeflow.pipeline_spec import tasks
from citeflow.kubernetes.client import TIMEOUT_S

METHOD = "ml_metadata.MetadataStoreService/GetArtifactsByURI"
SERVICE = "metadata-envoy-service:9090"
URIS = 2
ARTIFACTS = 1
URI = 3
PROPERTIES = 5
"""Numbers of the fields of GetArtifactsByURI's request and response, and of an Artifact."""

TRAILERS = 0x80
"""Flag of the gRPC-Web frame that holds no message."""


def outputs_of(pods):
    """Return the URIs of artifacts by step and name, of V1Pods with the oldest first."""
    found = {}
    for pod in pods:
        words = [
            word
            for container in pod.spec.containers
            for word in [*(container.command or []), *(container.args or [])]
        ]
        for option, value in itertools.pairwise(words):
            if option == "--executor_input":
                named = json.loads(value).get("outputs", {}).get("artifacts", {})
                step = pod.metadata.labels["app.kubernetes.io/component"]
                found[step] = {name: each["artifacts"][0]["uri"] for name, each in named.items()}
    return found


def missing(found, compiled):
    """Return the artifacts by step that a compiled pipeline declares and no pod makes.

    Steps of a branch are left out: it may not have been taken.
    """
    spec = next(yaml.safe_load_all(compiled))
    components = spec["components"]
    branches = [each["componentRef"]["name"] for each in tasks(spec) if "triggerPolicy" in each]
    within = [each for name in branches for each in components[name]["dag"]["tasks"].values()]
    optional = {each["componentRef"]["name"] for each in within}
    lacking = {}
    for component in components.keys() - optional:
        definition = components[component]
        step = component.removeprefix("comp-")
        names = set(definition.get("outputDefinitions", {}).get("artifacts", {}))
        if names - set(found.get(step, {})):
            lacking[step] = names - set(found.get(step, {}))
    return lacking


def figures(api, uris, *, namespace):
    """Return what ML Metadata holds of artifacts, by their URIs.

    Raises:
        ApiException: there is no such service, or it may not be asked.
    """
    message = b"".join(_field(URIS, uri.encode()) for uri in uris)
    response = api.call_api(
        f"/api/v1/namespaces/{namespace}/services/{SERVICE}/proxy/{METHOD}",
        "POST",
        header_params={"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"},
        body=struct.pack(">BI", 0, len(message)) + message,
        auth_settings=["BearerToken"],
        _preload_content=False,
        _return_http_data_only=True,
        _request_timeout=TIMEOUT_S,
    )
    return decode(response.data)


def decode(answer):
    """Return the custom properties of the artifacts in an answer, by their URIs."""
    message = b""
    while answer:
        flags, length = struct.unpack(">BI", answer[:5])
        message += b"" if flags & TRAILERS else answer[5 : 5 + length]
        answer = answer[5 + length :]
    found = {}
    for number, artifact in _fields(message):
        if number == ARTIFACTS:
            parts = list(_fields(artifact))
            uri = next(value.decode() for number, value in parts if number == URI)
            found[uri] = dict(_property(value) for number, value in parts if number == PROPERTIES)
    return found


def _property(entry):
    """Return a name and a value: an integer, a number, a text, or None for anything else."""
    parts = dict(_fields(entry))
    number, value = next(iter(_fields(parts[2])), (0, None))
    if number == 2:  # a double, of which the parser returns the bits
        value = struct.unpack("<d", struct.pack("<Q", value))[0]
    if number == 3:
        value = value.decode()
    return parts[1].decode(), value if number in (1, 2, 3) else None


def _fields(message):
    unknown = unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(message))
    return [(each.field_number, each.data) for each in unknown]


def _field(number, value):
    """Encode a field of bytes: the length in groups of seven bits."""
    size = len(value)
    length = b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value
