"""What surrounds every talk with MLflow: bounded waits, no chatter, and errors that are told without secrets."""

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from citeflow.errors import CiteflowError, UnavailableError
from citeflow.utils.logging import redact_url

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of MLflow, each unless it is set. Its own defaults are eight tries of two minutes each."""

SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
LONGEST = 300
"""Characters of MLflow's own message that an error tells."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let MLflow neither print nor wait for long; import it within, as it reads some of this only then."""
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


@contextlib.contextmanager
def failures_told(uri: str, hint: str) -> Iterator[None]:
    """Tell whatever goes wrong with a server or its client in two lines.

    Args:
        uri: where MLflow is.
        hint: what to do.

    Raises:
        UnavailableError: MLflow does not answer, refuses, or lacks a package for such a URI.
    """
    try:
        yield
    except CiteflowError:
        raise
    except (
        Exception
    ) as error:  # mlflow lets errors of many packages through, and what is lost is a copy only
        raise _told(error, uri, hint) from None


def _told(error: Exception, uri: str, hint: str) -> UnavailableError:
    place = shown(uri)
    if _is_silence(error):
        return UnavailableError("MLflow does not answer", place, hint=hint)
    reason = " ".join(without_known_secrets(str(error), uri).split())[:LONGEST]
    return UnavailableError(
        "MLflow was not told of the run", f"{place}: {reason or type(error).__name__}", hint=hint
    )


def _is_silence(error: BaseException | None) -> bool:
    """Whether the network failed, and not what was asked."""
    while error is not None:
        if isinstance(error, OSError) and type(error).__module__.startswith("requests"):
            return type(error).__name__ != "HTTPError"
        error = error.__cause__ or error.__context__
    return False


def without_known_secrets(text: str, uri: str) -> str:
    """A message of MLflow without what it may repeat of the URI and the environment."""
    known = [os.environ.get(name) for name in SECRETS]
    with contextlib.suppress(ValueError):
        parts = urlsplit(uri if "://" in uri else f"//{uri}")
        known += [parts.password, unquote(parts.password or ""), parts.query]
        known += [value.strip("/") for _, value in parse_qsl(parts.query)]
    text = re.sub(r"//\S*@", "//", text.replace(uri, shown(uri)))
    for secret in filter(None, known):
        text = text.replace(secret, "***")
    return text


def shown(uri: str) -> str:
    """A URI without user, password and query, where its scheme was forgotten too."""
    return redact_url(uri) if "://" in uri else uri.rpartition("@")[2].partition("?")[0]
