"""Whatever is sent, the answer is one problem in one line of JSON, and never the server's fault."""

import json
import socket

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving.conftest import running

NEW = "/v1/citations"
STORED = "/v1/papers/p300/citations"
BATCH = "/v1/citations:batch"
INFER = "/v2/models/citeflow/infer"


def tensor(**changes):
    return {
        "inputs": [{"name": "paper", "shape": [1], "datatype": "BYTES", "data": ["p3"], **changes}]
    }


BODIES = [
    (NEW, b"", 422),
    (NEW, b"{", 422),
    (NEW, b"[]", 422),
    (NEW, b"null", 422),
    (NEW, b'"text"', 422),
    (NEW, b"\xff\xfe", 422),
    (NEW, b"[" * 100_000, 400),
    (NEW, b'{"references":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    (NEW, {}, 422),
    (NEW, {"references": ["p3"], "surprise": 1}, 422),
    (NEW, {"references": "p3"}, 422),
    (NEW, {"references": [{}]}, 422),
    (NEW, {"references": ["nobody"]}, 404),
    (NEW, {"references": ["\ud800"]}, 404),
    (NEW, {"references": ["p3"] * 10_001}, 422),
    (NEW, {"title": 7.5, "abstract": None}, 422),
    (NEW, {"title": "\0"}, 422),
    (NEW, {"features": [1, 2]}, 422),
    (NEW, b'{"features": [NaN]}', 422),
    (NEW, b'{"features": [Infinity]}', 422),
    (NEW, b'{"features": [1e999]}', 422),
    (NEW, {"features": ["x"] * 128}, 422),
    (NEW, {"references": ["p3"], "date": "soon"}, 422),
    (NEW, {"references": ["p3"], "date": "0000-99-99"}, 422),
    (NEW, {"references": ["p3"], "since": "9999"}, 422),
    (NEW, {"references": ["p3"], "k": 0}, 422),
    (NEW, {"references": ["p3"], "k": 10**30}, 422),
    (NEW, {"references": ["p3"], "k": "10"}, 422),
    (NEW, {"references": ["p3"], "exact": "yes"}, 422),
    (STORED, {"k": True}, 422),
    (STORED, {"title": "x"}, 422),
    (BATCH, {"queries": []}, 422),
    (BATCH, {"queries": [{}] * 257}, 422),
    (BATCH, {"queries": [{"paper": ["p3"]}]}, 422),
    (INFER, {"inputs": []}, 422),
    (INFER, tensor(name="image"), 422),
    (INFER, tensor(datatype="FP32"), 422),
    (INFER, tensor(shape=[3]), 422),
    (INFER, tensor(shape=[10**12]), 422),
    (INFER, tensor(data=[7]), 422),
    (INFER, tensor(data=["nobody"]), 404),
    (INFER, {**tensor(), "parameters": {"k": []}}, 422),
    (INFER, {"inputs": tensor()["inputs"] * 2}, 422),
    ("/v2/models/other/infer", tensor(), 404),
]

OTHERS = [
    ("GET", NEW, 405),
    ("DELETE", "/v1/papers/p300", 405),
    ("POST", "/v1/papers/nobody/citations", 404),
    ("GET", "/v1/papers/", 404),
    ("GET", "/v1/papers", 422),
    ("GET", "/v1/papers?q=x&limit=1000000", 422),
    ("GET", "/v1/papers/%00%ff%fe", 404),
    ("GET", "/v1/papers/" + "x" * 5_000, 404),
    ("GET", "/nothing/here", 404),
    ("GET", "/docs", 404),
]


HEAD = b"POST /v1/citations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


def connect(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60)


def check(response, status):
    assert response.status_code == status, response.text[:300]
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "\n" not in response.text
    problem = response.json()
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert len(problem["detail"]) <= 310
    assert "Traceback" not in response.text


@pytest.mark.parametrize(("path", "body", "status"), BODIES, ids=range(len(BODIES)))
def test_a_malformed_body_is_one_problem(server, path, body, status):
    content = body if isinstance(body, bytes) else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    check(requests.post(server.url + path, content, headers=headers, timeout=60), status)


@pytest.mark.parametrize(("method", "path", "status"), OTHERS, ids=range(len(OTHERS)))
def test_a_malformed_request_is_one_problem(server, method, path, status):
    check(requests.request(method, server.url + path, timeout=60), status)


def test_a_body_of_another_type_is_one_problem(server):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "\xe9"):
        headers = {"Content-Type": content_type}
        response = requests.post(server.url + NEW, b"k=1", headers=headers, timeout=60)
        check(response, 422)


def test_a_large_body_is_refused_before_it_is_read(server):
    for body in (b"x" * (2 << 20), iter([b"x" * 65_536] * 40)):
        try:
            response = requests.post(server.url + NEW, body, timeout=60)
        except requests.ConnectionError:  # closed while the body was sent
            continue
        check(response, 413)
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60) as client:
        client.sendall(
            b"POST /v1/citations HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_a_slow_body_ends_with_a_time_out(index_folder):
    with running(index_folder, body_timeout_s=0.2) as server, connect(server) as client:
        client.sendall(HEAD % 100 + b"{")
        assert client.recv(100).startswith(b"HTTP/1.1 408")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
fields = st.sampled_from(
    ["title", "abstract", "references", "papers", "date", "features", "k", "since", "exact",
     "exclude_cited", "queries", "paper", "id", "inputs", "parameters", "shape", "data", "name"]
)  # fmt: skip
bodies = st.dictionaries(fields, json_values | st.just(["p3"]), max_size=6) | json_values


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.sampled_from([NEW, STORED, BATCH, INFER]), body=bodies)
def test_no_body_is_the_fault_of_the_server(server, path, body):
    headers = {"Content-Type": "application/json"}
    content = json.dumps(body)  # with NaN, and lone surrogates
    response = requests.post(server.url + path, content, headers=headers, timeout=60)
    if response.status_code != 200:
        assert response.status_code in (404, 422)
        check(response, response.status_code)
