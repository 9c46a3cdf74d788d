"""Tokens that a provider has not signed, or not as they are."""

import base64
import hmac
import json

from joserfc import jwt

from fakes.identity_provider import new_key


def encoded(values):
    return base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()


def unsigned(idp, claims):
    return f"{encoded({'alg': 'none'})}.{encoded(claims)}."


def unsigned_with_a_key(idp, claims):
    return f"{encoded({'alg': 'none', 'kid': 'first'})}.{encoded(claims)}."


def signed_with_the_public_key(idp, claims):
    text = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(claims)}"
    digest = hmac.digest(idp.keys[0].as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def signed_by_a_key_of_the_same_name(idp, claims):
    return jwt.encode({"alg": "RS256", "kid": "first"}, claims, new_key("first", 2))


def signed_by_an_unknown_key(idp, claims):
    return jwt.encode({"alg": "RS256", "kid": "other"}, claims, new_key("other"))


def signed_by_a_key_of_its_own(idp, claims):
    key = new_key("own")
    header = {"alg": "RS256", "kid": "own", "jwk": key.as_dict(private=False)}
    return jwt.encode(header, claims, key)


def changed_after_it_was_signed(idp, claims):
    head, _, signature = idp.sign(claims).split(".")
    return f"{head}.{encoded({**claims, 'sub': '1'})}.{signature}"
