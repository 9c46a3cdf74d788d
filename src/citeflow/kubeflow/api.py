"""The server of Kubeflow Pipelines: kfp.Client finds it and signs in, its generated API asks, each time within a limit.

kfp.Client's own methods print links on stdout, wait for ever for an answer, and write into the home directory. So they
are left aside: what is asked here goes through `client.runs`, `client.pipelines` and so on, which take a time limit.

A read is repeated while the server does not answer. A request that makes something is not, unless it certainly was not
carried out: where its answer is lost, what may have come of it is looked for by name. So nothing is made twice.
"""

import contextlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from citeflow.errors import INSTALL, CiteflowError, ConfigError, NotFoundError, UnavailableError
from citeflow.utils.logging import log, redact_url

TIMEOUT_S = (5.0, 60.0)
"""Longest wait for a connection, and for an answer; an upload is compiled before it is answered."""

PATIENCE_S = 15.0
"""How long a request is repeated while the server does not answer."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
PASSING = {408, 429, 500, 502, 503, 504}
"""Answers that mean: ask again."""

SHOWN = 300
"""Characters of a server's own words that are told."""


class UnansweredError(UnavailableError):
    """A request was sent and may have been carried out, but no answer came."""


def connect(
    *, host: str = "", token_file: Path | None = None, ssl_ca_cert: Path | None = None
) -> Any:
    """A kfp.Client that has reached its server; what is not given is found as kfp.Client does.

    Args:
        host: URL of the API or of the UI; by default $KF_PIPELINES_ENDPOINT, the service in the cluster that this pod
            runs on, or the service as the kubeconfig reaches it.
        token_file: holds the bearer token, read anew for each request; by default what $KF_PIPELINES_SA_TOKEN_PATH
            names, where it is set.
        ssl_ca_cert: certificate authority of the server, as PEM.

    Raises:
        UnavailableError: kfp is not installed, or the server does not answer.
        ConfigError: the server refuses us.
    """
    if host and not host.startswith(("http://", "https://")):
        raise ConfigError("--host", host, hint="a URL that begins with http:// or https://")
    options = {
        "credentials": _credentials(token_file),
        "ssl_ca_cert": str(_file(ssl_ca_cert)) if ssl_ca_cert else None,
    }
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # one at every start, meant for users of kfp 1
        return _client_class()(host=host or None, **options)


def _client_class() -> Any:
    try:
        import kfp
    except ImportError:
        raise UnavailableError("package is not installed", "kfp", hint=INSTALL) from None
    import urllib3

    class Client(kfp.Client):  # type: ignore[misc]
        def _load_config(self, *args: Any, **options: Any) -> Any:
            config = super()._load_config(*args, **options)
            config.retries = urllib3.Retry(
                total=0, redirect=False, respect_retry_after_header=False
            )
            return config

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            return ask(self.healthzs.healthz_service_get_healthz)

        def set_user_namespace(self, namespace: str) -> None:
            self._context_setting["namespace"] = (
                namespace  # theirs is written to a file below the home directory
            )

    return Client


def _credentials(token_file: Path | None) -> Any:
    path = token_file or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if not path:
        return None
    lines = _file(Path(path)).read_text().split()
    if len(lines) != 1:
        raise ConfigError("not a file with one token", path)
    try:
        from kfp.client import ServiceAccountTokenVolumeCredentials
    except ImportError:
        raise UnavailableError("package is not installed", "kfp", hint=INSTALL) from None
    return ServiceAccountTokenVolumeCredentials(path=str(path))


def _file(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError("no such file", path)
    return path


def ask(
    call: Callable[..., Any],
    *args: Any,
    makes: bool = False,
    patience_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    **options: Any,
) -> Any:
    """Call a method of the generated API.

    Args:
        call: the method.
        args: its arguments.
        makes: whether a repetition would make a second one.
        patience_s: how long to repeat it while the server does not answer; by default PATIENCE_S.
        sleep: waits for so many seconds.
        options: its keyword arguments.

    Raises:
        UnavailableError: the server did not answer for `patience_s`.
        UnansweredError: what was to be made was perhaps made.
        ConfigError, NotFoundError: the server refuses.
    """
    until = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    pause = FIRST_PAUSE_S
    while True:
        try:
            return _once(call, *args, **options)
        except _PassingError as passing:
            if makes and passing.was_sent:
                hint = "look for it on the server before you make it again"
                raise UnansweredError(
                    "no answer from Kubeflow Pipelines", passing, hint=hint
                ) from None
            if time.monotonic() + pause > until:
                raise UnavailableError(
                    "Kubeflow Pipelines does not answer", passing, hint=_WHERE
                ) from None
            log("kfp", "waits for the server", reason=passing)
        sleep(pause)
        pause = min(LONGEST_PAUSE_S, 2 * pause)


_WHERE = "is --host (or $KF_PIPELINES_ENDPOINT) right, and the port forwarded?"


class _PassingError(Exception):
    """Something that may be better soon."""

    def __init__(self, reason: str, *, was_sent: bool) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


def _once(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    import urllib3
    from kfp_server_api import ApiException  # type: ignore[import-untyped]

    client = call.__self__.api_client  # type: ignore[attr-defined]
    host = redact_url(client.configuration.host)
    try:
        value = call(*args, _request_timeout=TIMEOUT_S, **options)
    except ApiException as error:
        if error.status in PASSING:
            reason = f"{host}: {error.status} {_words(error.body)}"
            raise _PassingError(reason, was_sent=error.status != 429) from None
        raise _refusal(error, host) from None
    except urllib3.exceptions.MaxRetryError as error:
        raise _unreached(error.reason, host) from None
    except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
        raise _PassingError(f"{host}: {type(error).__name__}", was_sent=True) from None
    except ValueError:
        raise ConfigError("not an answer of Kubeflow Pipelines", host, hint=_WHERE) from None
    if "html" in (client.last_response.getheader("content-type") or ""):
        raise _login(host, "a page instead of data")
    return value


def _unreached(reason: object, host: str) -> Exception:
    import urllib3

    if isinstance(reason, urllib3.exceptions.SSLError):
        words = " ".join(str(reason).split())[:SHOWN]
        return ConfigError(
            "no trusted connection", f"{host}: {words}", hint="https or http? Or --ssl-ca-cert FILE"
        )
    never = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return _PassingError(f"{host}: {type(reason).__name__}", was_sent=not isinstance(reason, never))


def _refusal(error: Any, host: str) -> CiteflowError:
    """What the server says, with what to do about it."""
    words = _words(error.body) or str(error.reason)
    if error.status == 401:
        return ConfigError(
            "Kubeflow Pipelines refuses the token",
            host,
            hint=f"give another --token-file ({words})",
        )
    if error.status == 403:
        hint = "is --namespace your profile's, and may this account use pipelines there?"
        return ConfigError("not allowed by Kubeflow Pipelines", words, hint=hint)
    if 300 <= error.status < 400:
        target = str(error.headers.get("Location", "")).partition("?")[0]
        return _login(host, f"a redirection to {redact_url(target)}")
    if error.status == 404:
        return NotFoundError("Kubeflow Pipelines has no such thing", words, hint=_WHERE)
    kind = AlreadyThereError if error.status == 409 else ConfigError
    return kind("Kubeflow Pipelines refuses", f"{error.status} {words}")


class AlreadyThereError(ConfigError):
    """Something of this name exists."""


def _login(host: str, what: str) -> ConfigError:
    hint = "a login page? Give --token-file, or forward the port of ml-pipeline-ui and give that as --host"
    return ConfigError(f"{host} answers with", what, hint=hint)


def _words(body: object) -> str:
    """The message in an error's body: gRPC's `message`, the upload's `error_message`, or plain text."""
    text = body if isinstance(body, str) else ""
    with contextlib.suppress(ValueError, AttributeError):
        values = json.loads(text)
        text = str(
            values.get("message") or values.get("error_message") or values.get("error") or ""
        )
    words = " ".join(text.split())
    return "" if words.startswith("<") else words[:SHOWN]
