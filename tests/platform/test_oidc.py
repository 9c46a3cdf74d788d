"""Log-in through an identity provider: what it opens, and what nobody gets in with."""

import base64
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes import identity_provider
from fakes.forged_tokens import (
    changed_after_it_was_signed,
    encoded,
    signed_by_a_key_of_its_own,
    signed_by_a_key_of_the_same_name,
    signed_by_an_unknown_key,
    signed_with_the_public_key,
    unsigned,
    unsigned_with_a_key,
)
from fakes.identity_provider import CLIENT, SECRET, new_key
from sqlalchemy import select

from citeflow.errors import ConfigError
from citeflow.platform import oidc, store
from citeflow.platform.accounts import MAX_FAILURES
from citeflow.platform.oidc import OidcSettings, Provider, load

API = "/api/v1"
URL = "http://127.0.0.1:8080"
PASSWORD = "correct horse battery"
GATEWAY = "kubeflow-oidc-authservice"


@pytest.fixture
def idp():
    with identity_provider.serving() as provider:
        yield provider


@pytest.fixture
def make(make_platform, idp):
    """Return a function that makes a platform with this provider, and an account eve."""

    def made(**settings):
        values = {"issuer": idp.url, "client_id": CLIENT, "name": "Lab", **settings}
        platform = make_platform(oidc=Provider(OidcSettings(**values), SECRET))
        platform.services.accounts.add("eve", size="S")
        return platform

    return made


@pytest.fixture
def platform(make, idp):
    idp.person = {"sub": "1234", "preferred_username": "eve"}
    return make()


def begin(client, **body):
    answer = client.post(f"{API}/oidc/login", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["url"]


def log_in(idp, client, **body):
    return client.post(f"{API}/oidc/session", json=idp.log_in(begin(client, **body)))


def users(platform):
    with platform.services.store.read() as connection:
        rows = connection.execute(select(store.users.c.name, store.users.c.subject))
        return {row.name: row.subject for row in rows}


def audit(platform):
    return platform.client("root").get(f"{API}/audit").json()["entries"]


def refused(platform, answer, status, detail, client):
    """Check that nobody got in, in one line, and that the audit says so."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()["detail"]
    assert detail in said
    assert "\n" not in said
    assert client.get(f"{API}/me").status_code == 401
    assert not any(users(platform).values())
    assert len(users(platform)) == 4
    assert audit(platform)[0]["outcome"] == f"refused: {said}"
    assert audit(platform)[0]["action"] == "log in"


def test_log_in_opens_the_account_of_the_name_and_then_follows_the_subject(platform, idp):
    client = platform.client()
    assert client.get(f"{API}/setup").json()["oidc"] == "Lab"
    link = platform.services.accounts.add("eve", size="S")
    answer = log_in(idp, client, next="/runs/12?tab=log")
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] == "/runs/12?tab=log"
    assert answer.json()["me"]["name"] == client.get(f"{API}/me").json()["name"] == "eve"
    assert audit(platform)[0]["outcome"] == "opened the account by Lab"
    assert platform.services.accounts.link_owner(link) == ""
    idp.person["preferred_username"] = "bob"  # a name may change, and gets nobody another's
    assert log_in(idp, platform.client()).json()["me"]["name"] == "eve"
    assert audit(platform)[0]["outcome"] == "logged in by Lab"
    password = {"name": "eve", "password": ""}
    assert platform.client().post(f"{API}/session", json=password).status_code == 401
    body = {"old": "", "new": PASSWORD}
    assert client.post(f"{API}/password", json=body).status_code == 409


def test_what_begins_a_log_in_is_out_of_reach(platform, idp):
    client = platform.client()
    answer = client.post(f"{API}/oidc/login", json={})
    flags = answer.headers["set-cookie"].lower()
    for flag in ("httponly", "samesite=strict", "path=/api/v1/oidc", "max-age=600"):
        assert flag in flags
    query = parse_qs(urlsplit(answer.json()["url"]).query)
    assert query["redirect_uri"] == [f"{URL}/oidc"]
    sealed = client.cookies["citeflow_oidc"]
    for part in (query["state"][0], query["nonce"][0]):
        assert part not in sealed
        assert part.encode() not in base64.urlsafe_b64decode(sealed.split(".")[3] + "==")


def test_account_in_use_is_not_another_ones(platform, idp):
    for name in ("ann", "root"):
        idp.person["preferred_username"] = name
        answer = log_in(idp, platform.client())
        assert answer.status_code == 403
        assert answer.json()["detail"] == f"the account {name} is in use already"
    idp.person["preferred_username"] = "eve"
    assert log_in(idp, platform.client()).status_code == 200
    idp.person["sub"] = "5678"
    assert log_in(idp, platform.client()).status_code == 403
    assert [name for name, subject in users(platform).items() if subject] == ["eve"]


def test_account_is_made_only_where_the_settings_say_so(make, idp):
    idp.person = {"sub": "1", "preferred_username": "New.User"}
    platform = make()
    answer = log_in(idp, platform.client())
    assert (answer.status_code, answer.json()["detail"]) == (403, "there is no account new-user")
    assert "new-user" not in users(platform)
    platform = make(create_users=True)
    me = log_in(idp, platform.client()).json()["me"]
    assert me == {"name": "new-user", "role": "user", "environment": None}


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"email": "eve@lab.org", "email_verified": True}, 200),
        ({"email": "eve@lab.org", "email_verified": False}, 403),
        ({"email": "eve@lab.org", "email_verified": "true"}, 403),
        ({"email": "eve@lab.org"}, 403),
        ({"email": "eve@evil.example", "email_verified": True}, 403),
        ({"email": "../eve@lab.org", "email_verified": True}, 403),
        ({"email": ["eve@lab.org"], "email_verified": True}, 403),
        ({"preferred_username": "eve"}, 403),
    ],
)
def test_address_counts_where_it_is_verified_and_of_the_domain(make, idp, claims, status):
    idp.person = {"sub": "1", **claims}
    platform = make(name_claim="email", email_domain="lab.org", create_users=True)
    assert log_in(idp, platform.client()).status_code == status
    assert len(users(platform)) == 4


def test_suspended_and_removed_users_stay_out(platform, idp):
    admin, client = platform.client("root"), platform.client()
    log_in(idp, client)
    admin.patch(f"{API}/users/eve", json={"suspended": True})
    assert client.get(f"{API}/me").status_code == 401
    assert log_in(idp, client).json()["detail"] == "the account is suspended"
    admin.patch(f"{API}/users/eve", json={"suspended": False})
    assert log_in(idp, client).status_code == 200
    admin.delete(f"{API}/users/eve")
    assert client.get(f"{API}/me").status_code == 401
    assert log_in(idp, client).json()["detail"] == "there is no account eve"


def test_admin_who_logs_in_so_is_one_that_others_may_leave_it_to(platform, idp):
    admin = platform.client("root")
    assert log_in(idp, platform.client()).status_code == 200
    admin.patch(f"{API}/users/eve", json={"role": "admin"})
    assert admin.patch(f"{API}/users/root", json={"role": "user"}).status_code == 200


LIES = {
    "another issuer": ({"iss": "https://evil.example"}, "its iss is wrong"),
    "no issuer": ({"iss": None}, "it lacks iss"),
    "another audience": ({"aud": "another"}, "its aud is wrong"),
    "another of two audiences": ({"aud": [CLIENT, "x"], "azp": "x"}, "made for another client"),
    "expired": ({"exp": int(time.time()) - 3_600}, "it has expired"),
    "never expires": ({"exp": None}, "it lacks exp"),
    "expires at no time": ({"exp": "tomorrow"}, "its exp is wrong"),
    "from the future": ({"iat": int(time.time()) + 3_600}, "its iat is wrong"),
    "not yet": ({"nbf": int(time.time()) + 3_600}, "its nbf is wrong"),
    "nonce of another log-in": ({"nonce": "x"}, "its nonce is wrong"),
    "no nonce": ({"nonce": None}, "it lacks nonce"),
    "nobody": ({"sub": None}, "it lacks sub"),
    "a number": ({"sub": 1234}, "its sub is wrong"),
}


@pytest.mark.parametrize("lie", LIES)
def test_token_with_a_wrong_claim_is_refused(platform, idp, lie):
    idp.lies, reason = LIES[lie]
    client = platform.client()
    refused(platform, log_in(idp, client), 401, reason, client)


FORGERIES = {
    unsigned: "its algorithm is not one of a private key",
    unsigned_with_a_key: "its algorithm is not one of a private key",
    signed_with_the_public_key: "its algorithm is not one of a private key",
    signed_by_a_key_of_the_same_name: "its signature is wrong",
    signed_by_an_unknown_key: "its key is not one of the provider's",
    signed_by_a_key_of_its_own: "it is none of the provider's",
    changed_after_it_was_signed: "its signature is wrong",
    lambda idp, claims: "x": "it is none of the provider's",
    lambda idp, claims: "a.b.c": "it is none of the provider's",
    lambda idp, claims: f"{encoded({'alg': 'RS256'})}.é.": "it is none of the provider's",
}


@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_token_is_refused(platform, idp, forge):
    idp.make_token = lambda claims: forge(idp, claims)
    client = platform.client()
    refused(platform, log_in(idp, client), 401, FORGERIES[forge], client)


def test_new_key_of_the_provider_is_found_and_unknown_ones_do_not_make_it_busy(
    platform, idp, monkeypatch
):
    assert log_in(idp, platform.client()).status_code == 200
    idp.keys = [new_key("second")]
    assert log_in(idp, platform.client()).status_code == 401  # within a minute of the last look
    monkeypatch.setattr(oidc, "KEYS_EVERY_S", 0.0)
    assert log_in(idp, platform.client()).status_code == 200
    monkeypatch.undo()
    idp.make_token = lambda claims: signed_by_an_unknown_key(idp, claims)
    looks = idp.asked.count("/keys")
    for _ in range(5):
        assert log_in(idp, platform.client()).status_code == 401
    assert idp.asked.count("/keys") == looks


def test_answer_without_the_state_of_this_browser_is_refused(platform, idp):
    client = platform.client()
    answer = idp.log_in(begin(client))
    for state in ("", "x", answer["state"] + "x", "é"):
        given = client.post(f"{API}/oidc/session", json={**answer, "state": state})
        refused(platform, given, 401, "another log-in", client)
    stranger = platform.client()
    given = stranger.post(f"{API}/oidc/session", json=answer)
    refused(platform, given, 401, "no log-in was started in this browser", stranger)
    assert client.post(f"{API}/oidc/session", json=answer).status_code == 200  # it still may


def test_answer_counts_once(platform, idp):
    client = platform.client()
    answer = idp.log_in(begin(client))
    sealed = client.cookies["citeflow_oidc"]
    assert client.post(f"{API}/oidc/session", json=answer).status_code == 200
    assert "citeflow_oidc" not in client.cookies
    thief = platform.client()
    thief.cookies.set("citeflow_oidc", sealed, path="/api/v1/oidc")
    given = thief.post(f"{API}/oidc/session", json={**answer, "code": "code-9"})
    assert (given.status_code, given.json()["detail"]) == (
        401, "the log-in has had its answer already",
    )  # fmt: skip
    assert thief.get(f"{API}/me").status_code == 401


def test_code_and_token_of_another_log_in_are_refused(platform, idp):
    victim, client = platform.client(), platform.client()
    stolen = idp.log_in(begin(victim))
    own = idp.log_in(begin(client))
    given = client.post(f"{API}/oidc/session", json={**own, "code": stolen["code"]})
    refused(platform, given, 401, "does not know the code", client)  # by its verifier
    replayed = idp.sign(idp.claims(nonce="that of the victim"))
    idp.make_token = lambda claims: replayed
    refused(platform, log_in(idp, client), 401, "its nonce is wrong", client)


@pytest.mark.parametrize("sealed", ["", "x", "a.b.c.d.e", "é"])
def test_cookie_that_the_server_has_not_sealed_is_refused(platform, idp, sealed):
    client = platform.client()
    answer = idp.log_in(begin(client))
    headers = {"Cookie": f"citeflow_oidc={sealed}".encode()}
    client.cookies.clear()
    given = client.post(f"{API}/oidc/session", json=answer, headers=headers)
    refused(platform, given, 401, "no log-in was started", client)


def test_log_in_ends_with_its_time(platform, idp, monkeypatch):
    client = platform.client()
    monkeypatch.setattr(oidc, "LOG_IN_S", -1)
    refused(platform, log_in(idp, client), 401, "took too long", client)


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "",
     "\\\\evil", "/a\r\nLocation: x", "/api/v1/me", "/ x"],
)  # fmt: skip
def test_next_page_is_one_of_this_server(platform, path):
    answer = platform.client().post(f"{API}/oidc/login", json={"next": path})
    assert (answer.status_code, answer.json()["field"]) == (422, "next")


def test_another_site_begins_and_ends_no_log_in(platform, idp):
    client = platform.client()
    headers = {"Origin": "https://evil.example"}
    assert client.post(f"{API}/oidc/login", json={}, headers=headers).status_code == 403
    answer = idp.log_in(begin(client))
    given = client.post(f"{API}/oidc/session", json=answer, headers=headers)
    assert given.status_code == 403


def test_provider_that_says_no_is_quoted(platform, idp):
    client = platform.client()
    begin(client)
    given = client.post(f"{API}/oidc/session", json={"error": "access_denied", "state": "x"})
    refused(platform, given, 401, "the identity provider refused: access_denied", client)


def test_failed_log_ins_are_limited(platform, idp):
    idp.lies = {"aud": "another"}
    client = platform.client()
    for _ in range(MAX_FAILURES["address"]):
        assert log_in(idp, client).status_code == 401
    idp.lies = {}
    assert log_in(idp, client).status_code == 429


AWAY = {
    "is not JSON": b"<html>",
    "is no object": b"[]",
    "is another issuer": b'{"issuer": "https://evil.example"}',
    "is empty": b"{}",
    "is long": b"x" * (oidc.MAX_ANSWER + 1),
}


@pytest.mark.parametrize("answer", AWAY)
def test_provider_that_makes_no_sense_is_one_line(platform, idp, answer):
    idp.answer = AWAY[answer]
    client = platform.client()
    given = client.post(f"{API}/oidc/login", json={})
    refused(platform, given, 503, "the identity provider", client)


def test_provider_that_is_away_or_slow_is_one_line(platform, idp, monkeypatch):
    monkeypatch.setattr(oidc, "ANSWER_S", 0.1)
    client = platform.client()
    idp.wait.clear()
    given = client.post(f"{API}/oidc/login", json={})
    refused(platform, given, 503, "the identity provider does not answer", client)
    idp.wait.set()
    monkeypatch.undo()
    answer = idp.log_in(begin(client))
    monkeypatch.setattr(oidc, "ANSWER_S", 0.1)
    idp.wait.clear()
    given = client.post(f"{API}/oidc/session", json=answer)
    refused(platform, given, 503, "the identity provider does not answer", client)


def test_provider_on_a_closed_port_is_one_line(make_platform):
    settings = OidcSettings(issuer="http://127.0.0.1:1", client_id=CLIENT)
    platform = make_platform(oidc=Provider(settings))
    answer = platform.client().post(f"{API}/oidc/login", json={})
    assert answer.status_code == 503
    assert "127.0.0.1:1" in answer.json()["detail"]


@pytest.mark.parametrize("part", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_parts_of_the_provider_that_anybody_could_read_are_refused(platform, idp, part):
    idp.metadata = {part: "http://login.lab.org/x"}
    client = platform.client()
    given = client.post(f"{API}/oidc/login", json={})
    refused(platform, given, 503, f"its {part}", client)


def test_client_without_a_right_secret_is_the_servers_fault(make, idp):
    platform = make()
    platform.services.oidc._secret = "wrong"
    client = platform.client()
    given = log_in(idp, client)
    refused(platform, given, 503, "refuses this server: invalid_client", client)


# Behind Kubeflow's gateway.


@pytest.fixture
def behind(make, idp):
    idp.person = {"sub": "1234", "preferred_username": "eve", "email": "eve@lab.org"}
    return make(client_id="", gateway_client_id=GATEWAY)


def through_gateway(idp, named="eve@lab.org", token=None, **changes):
    token = token or idp.sign(idp.claims(GATEWAY) | changes)
    return {"kubeflow-userid": named, "Authorization": f"Bearer {token}"}


def test_gateway_lets_in_whom_its_token_names(behind, idp):
    client = behind.client()
    me = client.get(f"{API}/me", headers=through_gateway(idp))
    assert (me.status_code, me.json()["name"]) == (200, "eve")
    assert client.get(f"{API}/me").status_code == 401  # it has left no session
    assert client.get(f"{API}/setup").json()["oidc"] == ""
    headers = through_gateway(idp)
    assert client.post(f"{API}/oidc/login", json={}, headers=headers).status_code == 404
    made = client.put(f"{API}/environment", json={"size": "S"}, headers=headers)
    assert made.status_code == 200
    evil = {**headers, "Origin": "https://evil.example"}
    assert client.put(f"{API}/environment", json={"size": "S"}, headers=evil).status_code == 403
    entries = [each for each in audit(behind) if each["user"] == "eve"]
    assert [each["outcome"] for each in entries] == ["S", "opened the account by Lab"]


def test_gateway_wins_over_an_older_session(behind, idp):
    client = behind.client("bob")
    assert client.get(f"{API}/me", headers=through_gateway(idp)).json()["name"] == "eve"
    headers = through_gateway(idp, aud="another")
    assert client.get(f"{API}/me", headers=headers).status_code == 401


def test_header_alone_is_refused(behind, idp):
    client = behind.client()
    for headers in (
        {"kubeflow-userid": "eve@lab.org"},
        {"kubeflow-userid": "eve@lab.org", "Authorization": "Basic ZXZlOng="},
        {"kubeflow-userid": "eve@lab.org", "Authorization": "Bearer "},
        {"kubeflow-userid": "eve@lab.org", "Authorization": "Bearer x"},
        through_gateway(idp, named="ann@lab.org"),
        through_gateway(idp, named="ann"),
        through_gateway(idp, aud=CLIENT),
        through_gateway(idp, iss="https://evil.example"),
        through_gateway(idp, exp=1),
        through_gateway(idp, token=unsigned(idp, idp.claims(GATEWAY))),
        through_gateway(idp, token=signed_by_an_unknown_key(idp, idp.claims(GATEWAY))),
    ):
        answer = client.get(f"{API}/me", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["content-type"] == "application/problem+json"
    assert not any(users(behind).values())
    noted = [each["outcome"] for each in audit(behind) if each["action"] == "gateway"]
    assert "refused: kubeflow-userid comes without a token that proves it" in noted
    assert len(noted) == len(set(noted))  # a page that asks again and again is noted once


def test_header_counts_for_nothing_without_a_gateway(platform, idp):
    client = platform.client()
    assert client.get(f"{API}/me", headers=through_gateway(idp)).status_code == 401
    bob = platform.client("bob")
    assert bob.get(f"{API}/me", headers=through_gateway(idp)).json()["name"] == "bob"


def test_gateway_goes_on_while_the_provider_is_away(behind, idp, monkeypatch):
    client = behind.client()
    assert client.get(f"{API}/me", headers=through_gateway(idp)).status_code == 200
    monkeypatch.setattr(oidc, "FRESH_S", 0.0)
    idp.answer = b"<html>"
    assert client.get(f"{API}/me", headers=through_gateway(idp)).status_code == 200


# Settings.


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("gateway_client_id: x", "any pod of the mesh can send kubeflow-userid"),
        ("issuer: https://a.example", "a setting is missing: oidc.client_id"),
        ("issuer: http://a.example\nclient_id: x", "oidc.issuer: http://a.example"),
        ("issuer: https://a.example\nclient_id: x\nname_claim: email", "oidc.email_domain"),
        ("issuer: https://a.example\nclient_id: x\nname_claim: nick", "oidc.name_claim: nick"),
        ("issuer: https://a.example\nclient_secret: x", "unknown setting: oidc.client_secret"),
        ("issuer: https://a.example\nclient_id: x\nsecret_file: /none", "oidc.secret_file"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, text, what):
    (tmp_path / "oidc.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "oidc.yaml", {})
    assert what in str(caught.value).splitlines()[0]


def test_secret_comes_from_the_environment_or_a_file(tmp_path):
    path = tmp_path / "oidc.yaml"
    path.write_text("issuer: https://a.example\nclient_id: x\n")
    assert load(path, {oidc.SECRET: "s"})._secret == "s"
    (tmp_path / "secret").write_text("t\n")
    path.write_text(f"{path.read_text()}secret_file: {tmp_path / 'secret'}\n")
    assert load(path, {oidc.SECRET: "s"})._secret == "t"
