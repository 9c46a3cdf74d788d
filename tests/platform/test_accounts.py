"""Log-in, links, sessions, roles and the audit."""

import pytest
from sqlalchemy import select, update

from citeflow.errors import ConfigError, UnavailableError
from citeflow.platform import store
from citeflow.platform.accounts import MAX_FAILURES, SESSION_S

API = "/api/v1"
PASSWORD = "correct horse battery"


def log_in(client, name="ann", password=PASSWORD):
    return client.post(f"{API}/session", json={"name": name, "password": password})


def test_log_in_and_out(platform):
    client = platform.client()
    assert log_in(client).json()["name"] == "ann"
    token = client.cookies["citeflow_session"]
    assert client.get(f"{API}/me").json()["role"] == "user"
    assert client.delete(f"{API}/session").status_code == 204
    client.cookies.set("citeflow_session", token)
    assert client.get(f"{API}/me").status_code == 401


def test_wrong_password_and_unknown_name_are_one_error(platform):
    client = platform.client()
    refused = [log_in(client, "ann", "wrong"), log_in(client, "nobody", PASSWORD)]
    assert [answer.status_code for answer in refused] == [401, 401]
    assert len({answer.json()["detail"] for answer in refused}) == 1


def test_log_in_is_refused_after_some_failures(platform):
    client = platform.client()
    for _ in range(MAX_FAILURES["pair"]):
        assert log_in(client, "ann", "wrong").status_code == 401
    answer = log_in(client)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert log_in(client, "bob").status_code == 200  # from the same address
    with platform.services.store.write() as connection:
        connection.execute(update(store.failures).values(time=0.0))
    assert log_in(client).status_code == 200


def test_session_ends_with_its_time(platform):
    client = platform.client("ann")
    with platform.services.store.write() as connection:
        old = store.now() - SESSION_S - 1
        connection.execute(update(store.sessions).values(created=old))
    assert client.get(f"{API}/me").status_code == 401


def test_secrets_are_stored_as_digests(platform):
    link = platform.client("root").post(f"{API}/users", json={"name": "eve"}).json()["link"]
    token = link.partition("token=")[2]
    with platform.services.store.read() as connection:
        tables = [connection.execute(select(table)).all() for table in store.METADATA.sorted_tables]
    dump = str(tables)
    assert "$argon2id$" in dump
    for secret in (token, PASSWORD, *platform.sessions.values()):
        assert secret not in dump


def test_link_of_a_new_user_works_once(platform):
    admin, client = platform.client("root"), platform.client()
    first = admin.post(f"{API}/users", json={"name": "eve", "size": "S"}).json()["link"]
    link = admin.post(f"{API}/users", json={"name": "eve", "size": "S"}).json()["link"]
    old, token = (each.partition("token=")[2] for each in (first, link))
    assert client.get(f"{API}/setup?token={token}").json()["name"] == "eve"
    body = {"token": token, "password": "0123456789"}
    assert client.post(f"{API}/setup", json={**body, "token": old}).status_code == 403
    assert client.post(f"{API}/setup", json={**body, "password": "short"}).status_code == 422
    made = client.post(f"{API}/setup", json=body)
    assert (made.status_code, made.json()["environment"]["size"]) == (201, "S")
    assert client.post(f"{API}/setup", json=body).status_code == 403
    assert admin.post(f"{API}/users", json={"name": "eve"}).status_code == 409


def test_first_link_makes_the_admin_and_nobody_takes_a_name(platform):
    accounts = platform.services.accounts
    token = accounts.first_link()
    client = platform.client()
    body = {"token": token, "name": "ann", "password": "0123456789"}
    assert client.post(f"{API}/setup", json=body).status_code == 409
    assert client.post(f"{API}/setup", json={**body, "name": "Ann!"}).status_code == 422
    assert client.post(f"{API}/setup", json={**body, "name": "amy"}).json()["role"] == "admin"


def test_new_password_ends_other_sessions(platform):
    here, elsewhere = platform.client("ann"), platform.client()
    log_in(elsewhere)
    body = {"old": PASSWORD, "new": "another password"}
    assert here.post(f"{API}/password", json=body).status_code == 204
    assert here.get(f"{API}/me").status_code == 200
    assert elsewhere.get(f"{API}/me").status_code == 401
    assert log_in(elsewhere, "ann", "another password").status_code == 200


def test_suspended_user_is_out_and_starts_nothing(platform):
    admin, client = platform.client("root"), platform.client("ann")
    run = platform.submit("ann")
    assert admin.patch(f"{API}/users/ann", json={"suspended": True}).json()["suspended"]
    assert client.get(f"{API}/me").status_code == 401
    assert log_in(client).status_code == 403
    platform.tick()
    assert platform.backend.started == []
    admin.patch(f"{API}/users/ann", json={"suspended": False})
    platform.tick()
    assert platform.backend.started == [(run["id"], 1)]


def test_environment_is_suspended_and_woken_with_its_user(platform):
    admin, suspended = platform.client("root"), platform.backend.suspended
    admin.patch(f"{API}/users/ann", json={"suspended": True})
    assert suspended == {"ann"}
    admin.patch(f"{API}/users/ann", json={"size": "L"})
    assert suspended == {"ann"}
    admin.patch(f"{API}/users/ann", json={"suspended": False})
    assert suspended == set()


def test_user_whose_environment_cannot_be_woken_stays_suspended(platform, monkeypatch):
    admin = platform.client("root")
    platform.submit("ann")
    admin.patch(f"{API}/users/ann", json={"suspended": True})
    monkeypatch.setattr(platform.backend, "wake", away)
    assert admin.patch(f"{API}/users/ann", json={"suspended": False}).status_code == 503
    assert platform.services.accounts.get("ann").suspended
    platform.tick()
    assert platform.backend.started == []


@pytest.mark.parametrize("was_suspended", [False, True])
def test_user_whose_environment_cannot_be_removed_stays(platform, monkeypatch, was_suspended):
    admin = platform.client("root")
    admin.patch(f"{API}/users/ann", json={"suspended": was_suspended})
    with monkeypatch.context() as patched:
        patched.setattr(platform.backend, "remove_environment", away)
        assert admin.delete(f"{API}/users/ann").status_code == 503
    assert platform.services.accounts.get("ann").suspended == was_suspended
    assert admin.delete(f"{API}/users/ann").status_code == 204
    assert not platform.backend.folder("ann").exists()


def away(user):
    raise UnavailableError("the cluster does not answer", user)


def test_last_admin_stays(platform):
    admin = platform.client("root")
    platform.backend.ensure_environment("root", platform.backend.whole)
    for change in ({"role": "user"}, {"suspended": True}):
        assert admin.patch(f"{API}/users/root", json=change).status_code == 409
    assert admin.delete(f"{API}/users/root").status_code == 409
    assert platform.backend.folder("root").exists()
    assert platform.backend.suspended == set()
    admin.patch(f"{API}/users/ann", json={"role": "admin"})
    assert admin.patch(f"{API}/users/root", json={"role": "user"}).status_code == 200
    assert admin.get(f"{API}/users").status_code == 403


def test_removed_user_leaves_nothing_to_the_next_of_the_name(platform, succeed):
    run = platform.submit("ann", name="first")
    succeed(platform, run)
    admin = platform.client("root")
    assert admin.delete(f"{API}/users/ann").status_code == 204
    assert not platform.backend.folder("ann").exists()
    assert platform.client("ann").get(f"{API}/me").status_code == 401
    accounts = platform.services.accounts
    platform.sessions["ann2"] = accounts.open(accounts.add("ann", size="S"), "", PASSWORD)
    client = platform.client("ann2")
    assert client.get(f"{API}/runs").json() == {"runs": []}
    assert client.get(f"{API}/runs/{run['id']}").status_code == 404


def test_audit_has_who_did_what(platform):
    log_in(platform.client(), "ann", "wrong")
    platform.submit("ann", name="first")
    entries = platform.client("root").get(f"{API}/audit").json()["entries"]
    found = {(each["user"], each["action"], each["outcome"]) for each in entries}
    assert ("ann", "log in", "refused: name or password is wrong") in found
    assert ("ann", "submit", "queued") in found
    assert platform.client("root").get(f"{API}/audit?before=1").json() == {"entries": []}


def test_store_of_a_newer_version_is_refused(tmp_path, open_store):
    opened = open_store(tmp_path / "0")
    with opened.write() as connection:
        connection.execute(update(store.versions).values(number=99))
    opened.close()
    with pytest.raises(ConfigError, match="newer citeflow"):
        open_store(tmp_path / "0")
