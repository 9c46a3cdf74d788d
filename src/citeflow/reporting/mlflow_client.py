"""The connection to an MLflow server: quiet, without long waits, its errors in one line.

MLflow is imported only where MLFLOW_TRACKING_URI is set.
"""

import contextlib
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from citeflow.errors import CiteflowError, ConfigError, MissingPackageError, UnavailableError
from citeflow.utils.logging import redact_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of MLflow, each unless it is set. Its own defaults are eight tries of two minutes."""

INSTALL = f"pip install '.[mlflow]' in a checkout of citeflow, or unset {URI_VARIABLE}"
MAX_REASON_LENGTH = 300
"""Characters of MLflow's own message that an error repeats."""


def check() -> None:
    """Check, before any work, that the package is there if MLflow is wanted.

    Raises:
        MissingPackageError: it is not installed.
    """
    if os.environ.get(URI_VARIABLE) and importlib.util.find_spec("mlflow") is None:
        raise MissingPackageError("package is not installed", "mlflow", hint=INSTALL)


def uri() -> str:
    """Return the address of the server.

    Raises:
        ConfigError: it is not set.
    """
    if not (address := os.environ.get(URI_VARIABLE)):
        hint = f"{URI_VARIABLE}=http://127.0.0.1:5000 names it"
        raise ConfigError("no MLflow server is set", URI_VARIABLE, hint=hint)
    return address


@contextlib.contextmanager
def connected(address: str, *, failed: str, hint: str = "") -> Iterator["MlflowClient"]:
    """Hand out a client of the server; whatever goes wrong in the block is one error.

    Args:
        address: that of the server.
        failed: what did not happen if the server answers otherwise, such as "MLflow did not ...".
        hint: what to do then.

    Raises:
        MissingPackageError: mlflow is not installed.
        UnavailableError: the server does not answer, or refuses.
    """
    check()
    try:
        with _quiet():
            from mlflow import MlflowClient

            yield MlflowClient(address)
    except CiteflowError:
        raise
    except Exception as error:  # mlflow lets errors of many packages through
        # `from None`: the original may hold a password.
        raise _to_user_error(error, address, failed, hint) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow from printing and from long waits; it reads some variables on import only."""
    added = {name: value for name, value in DEFAULTS.items() if name not in os.environ}
    disabled = logging.root.manager.disable
    os.environ.update(added)
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for name in added:
            os.environ.pop(name, None)


def _to_user_error(error: Exception, uri: str, failed: str, hint: str) -> UnavailableError:
    if _is_network_failure(error):
        return UnavailableError("MLflow does not answer", public(uri), hint=hint)
    message = " ".join(hide_secrets(str(error), uri).split())[:MAX_REASON_LENGTH]
    reason = f"{public(uri)}: {message or type(error).__name__}"
    return UnavailableError(failed, reason, hint=hint)


def _is_network_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and type(error).__module__.startswith("requests"):
            return type(error).__name__ != "HTTPError"
        error = error.__cause__ or error.__context__
    return False


def hide_secrets(text: str, uri: str) -> str:
    """Remove from a message of MLflow what it may repeat of the URI and the environment."""
    secrets = [os.environ.get(name, "") for name in SECRETS]
    with contextlib.suppress(ValueError):
        parts = urlsplit(uri if "://" in uri else f"//{uri}")
        secrets += [parts.password or "", unquote(parts.password or ""), parts.query]
        secrets += [value.strip("/") for _, value in parse_qsl(parts.query)]
    text = re.sub(r"//\S*@", "//", text.replace(uri, public(uri)))
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def public(uri: str) -> str:
    """Return the URI without user, password and query, also if its scheme was forgotten."""
    return redact_url(uri) if "://" in uri else uri.rpartition("@")[2].partition("?")[0]
