"""Calls of the generated API of Kubeflow Pipelines: time limits, repetitions, errors for the user.

A request that reads is repeated while the server does not answer. A request that creates is not,
unless it certainly was not carried out: where its answer is lost, the caller looks for the new
object by name. So nothing is created twice.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, NoReturn

from citeflow.errors import CiteflowError, ConfigError, NotFoundError, UnavailableError
from citeflow.utils.logging import redact_url
from citeflow.utils.retry import Backoff, TransientError, retry

TIMEOUT_S = (5.0, 60.0)
"""Longest wait for a connection, and for an answer; an upload is compiled before it is answered."""

BACKOFF = Backoff(first_pause_s=0.5, longest_pause_s=15.0, patience_s=15.0)
"""Attempts of a request while the server does not answer."""

TRANSIENT = {408, 429, 500, 502, 503, 504}
"""Statuses that mean: ask again."""

SHOWN_CHARS = 300
"""At most so much of a server's own message is printed."""

IS_HOST_RIGHT = (
    "is --host right, or $KF_PIPELINES_ENDPOINT, or the kubeconfig? Is the port forwarded?"
)


class UnansweredError(UnavailableError):
    """A request was sent and may have been carried out, but no answer came."""


class AlreadyExistsError(ConfigError):
    """An object of this name exists."""


class _NoAnswerError(TransientError):
    """No answer, or one that means: ask again."""

    def __init__(self, reason: str, *, was_sent: bool) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


class RawApi:
    """The API past the generated client, which drops the fields that its version does not know."""

    def __init__(self, kfp: Any) -> None:
        self.api_client = kfp.healthzs.api_client

    def get(self, path: str, query: tuple[tuple[str, str], ...] = (), **options: Any) -> Any:
        """Return an answer as plain values; to be called by `call`."""
        return self.api_client.call_api(
            path,
            "GET",
            query_params=list(query),
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            **options,
        )


def call(
    method: Callable[..., Any],
    *args: Any,
    creates: bool = False,
    patience_s: float | None = None,
    **options: Any,
) -> Any:
    """Call a method of the generated API, again while the server does not answer.

    Args:
        method: the method.
        args: its arguments.
        creates: a second call would create a second object.
        patience_s: time for all attempts; by default that of BACKOFF.
        options: keyword arguments of the method.

    Raises:
        UnavailableError: the server did not answer in time.
        UnansweredError: the object was perhaps created.
        ConfigError, NotFoundError: the server refuses.
    """

    def attempt() -> Any:
        try:
            return _call_once(method, *args, **options)
        except _NoAnswerError as error:
            if creates and error.was_sent:
                hint = "look for it on the server before you create it again"
                what = "no answer from Kubeflow Pipelines"
                raise UnansweredError(what, error, hint=hint) from None
            raise

    patience_s = BACKOFF.patience_s if patience_s is None else patience_s
    backoff = dataclasses.replace(BACKOFF, patience_s=patience_s)
    try:
        return retry(attempt, backoff, subject="kfp")
    except TransientError as error:
        what = "Kubeflow Pipelines does not answer"
        raise UnavailableError(what, error, hint=IS_HOST_RIGHT) from None


def _call_once(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    import urllib3
    from kfp_server_api import ApiException  # type: ignore[import-untyped]

    client = method.__self__.api_client  # type: ignore[attr-defined]
    host = redact_url(client.configuration.host)
    try:
        value = method(*args, _request_timeout=TIMEOUT_S, **options)
    except ApiException as error:
        if error.status in TRANSIENT:
            reason = f"{host}: {error.status} {_message(error.body)}"
            raise _NoAnswerError(reason, was_sent=error.status != 429) from None
        raise _to_user_error(error, host) from None
    except urllib3.exceptions.MaxRetryError as error:
        _raise_unreached(error.reason, host)
    except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
        raise _NoAnswerError(f"{host}: {type(error).__name__}", was_sent=True) from None
    except ValueError:
        what = "not an answer of Kubeflow Pipelines"
        raise ConfigError(what, host, hint=IS_HOST_RIGHT) from None
    if "html" in (client.last_response.getheader("content-type") or ""):
        raise _login_error(host, "a page instead of data")
    return value


def _raise_unreached(reason: object, host: str) -> NoReturn:
    import urllib3

    if isinstance(reason, urllib3.exceptions.SSLError):
        message = " ".join(str(reason).split())[:SHOWN_CHARS]
        hint = "https or http? Or --ssl-ca-cert FILE"
        raise ConfigError("no trusted connection", f"{host}: {message}", hint=hint) from None
    unsent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    was_sent = not isinstance(reason, unsent)
    raise _NoAnswerError(f"{host}: {type(reason).__name__}", was_sent=was_sent) from None


def _to_user_error(error: Any, host: str) -> CiteflowError:
    """Say what the server refuses, and what to do about it."""
    message = _message(error.body) or str(error.reason)
    if error.status == 401:
        hint = f"another --token-file, or a new login for the kubeconfig's user ({message})"
        return ConfigError("Kubeflow Pipelines refuses the token", host, hint=hint)
    if error.status == 403:
        hint = "is --namespace your profile's, and may this account use pipelines there?"
        if "services/proxy" in message:  # the API server's word, not that of the service behind it
            hint = "forward the port of ml-pipeline-ui, and give --host"
        return ConfigError("not allowed by Kubeflow Pipelines", message, hint=hint)
    if 300 <= error.status < 400:
        target = str(error.headers.get("Location", "")).partition("?")[0]
        return _login_error(host, f"a redirection to {redact_url(target)}")
    if error.status == 404:
        what = "Kubeflow Pipelines has no such object"
        return NotFoundError(what, message, hint=IS_HOST_RIGHT)
    kind = AlreadyExistsError if error.status == 409 else ConfigError
    return kind("Kubeflow Pipelines refuses", f"{error.status} {message}")


def _login_error(host: str, answer: str) -> ConfigError:
    hint = "a login page? Give --token-file, or forward the port of ml-pipeline-ui as --host"
    return ConfigError(f"{host} answers with", answer, hint=hint)


def _message(body: object) -> str:
    """Return the message of an error of gRPC, of an upload, or plain text."""
    text = body if isinstance(body, str) else ""
    with contextlib.suppress(ValueError, AttributeError):
        values = json.loads(text)
        keys = ("message", "error_message", "error")
        text = str(next((values[key] for key in keys if values.get(key)), ""))
    words = " ".join(text.split())
    return "" if words.startswith("<") else words[:SHOWN_CHARS]
