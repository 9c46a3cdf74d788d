"""What other sites, and other names of the server, cannot do."""

import dataclasses

import pytest
from starlette.testclient import TestClient

from citeflow.platform.app import create_app

API = "/api/v1"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1:8080"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_change_from_another_origin_is_refused(platform, origin, method):
    client = platform.client("ann")
    answer = client.request(method, f"{API}/environment", headers={"Origin": origin})
    assert answer.status_code == 403
    assert answer.json()["hint"] == "the header Origin: http://127.0.0.1:8080"


def test_change_without_an_origin_is_refused(platform):
    client = platform.client("ann")
    del client.headers["Origin"]
    assert client.delete(f"{API}/environment").status_code == 403
    assert client.get(f"{API}/me").status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8080", "127.0.0.1", "127.0.0.1:9", ""])
def test_other_names_of_the_server_are_refused(platform, host):
    answer = platform.client("ann").get(f"{API}/me", headers={"Host": host})
    assert answer.status_code == 421


def test_names_of_this_machine_are_one(platform):
    client = platform.client("ann")
    headers = {"Host": "localhost:8080", "Origin": "http://localhost:8080"}
    assert client.put(f"{API}/environment", json={"size": "S"}, headers=headers).status_code == 200


def test_page_is_every_path_and_has_a_policy(make_platform, tmp_path):
    static = tmp_path / "page"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html>")
    (static / "assets" / "a1.js").write_text("1")
    client = make_platform(static=static).client()
    for path in ("/", "/runs/12", "/setup?token=x"):
        answer = client.get(path)
        assert answer.text == "<!doctype html>"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    plain = client.get("/", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert client.get("/").headers["content-encoding"] == "gzip"
    assert "immutable" in client.get("/assets/a1.js").headers["cache-control"]
    assert client.get("/assets/a2.js").status_code == 404
    assert client.get("/assets/../../platform.db").status_code in (200, 404)
    assert client.get("/%2e%2e/platform.db").text == "<!doctype html>"
    assert client.get("/api/v2/me").status_code == 404


def test_answers_of_the_api_are_not_kept(platform):
    answer = platform.client("ann").get(f"{API}/me")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("url", "is_secure"), [("http://127.0.0.1:8080", False), ("https://citeflow.lab.org", True)]
)
def test_cookie_is_out_of_reach(platform, tmp_path, url, is_secure):
    services = dataclasses.replace(platform.services, url=url)
    client = TestClient(create_app(services, static=tmp_path), base_url=url)
    body = {"name": "ann", "password": "correct horse battery"}
    answer = client.post(f"{API}/session", json=body, headers={"Origin": url})
    assert answer.status_code == 200
    flags = {flag.strip().lower() for flag in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert ("secure" in flags) == is_secure
    assert not any(flag.startswith("domain") for flag in flags)
