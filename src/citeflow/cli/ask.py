"""`citeflow ask`: ask a server which citations a paper lacks."""

import json
import sys
from dataclasses import asdict
from typing import Any

import click
import requests

from citeflow.cli import options
from citeflow.cli.predict import Asked, Listed, asked, listed, query_of
from citeflow.errors import (
    CiteflowError,
    ConfigError,
    DataError,
    NotFoundError,
    UnavailableError,
)
from citeflow.utils.logging import log, redact_url

TIMEOUT_S = 60.0

ERRORS: dict[int, type[CiteflowError]] = {
    404: NotFoundError,
    413: DataError,
    422: DataError,
    408: UnavailableError,
    429: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
"""Errors of the library by the status that says them."""


@click.command(cls=options.RecordCommand)
@click.argument("url")
@asked
@listed
@click.option("--exact", is_flag=True, help="Rank all papers, which takes longer.")
@click.option("--json", "output", flag_value="json", help="One JSON object.")
@click.option("--table", "output", flag_value="table", help="Text, the default on a terminal.")
def ask(
    url: str,
    asked: Asked,
    listed: Listed,
    exact: bool,
    output: str | None,
) -> None:
    """Ask a server for the papers that a paper should cite and does not, and why.

    URL is that of `citeflow serve`, such as http://127.0.0.1:8080. The paper is one of the server's
    graph (--paper), or a new one, as for `predict`.
    """
    if asked.batch is not None:
        hint = "citeflow predict --batch, or POST /v1/citations:batch"
        raise ConfigError("one paper at a time", "--batch", hint=hint)
    query = query_of(asked).model_dump(mode="json", exclude_defaults=True)
    wanted = {**asdict(listed), "exact": exact}
    answer = _post(f"{url.rstrip('/')}/v1/citations:batch", {"queries": [query], **wanted})
    [found] = answer["answers"]
    if "error" in found:
        raise _error(found["error"])
    if (output or ("table" if sys.stdout.isatty() else "json")) == "json":
        print(json.dumps(found), flush=True)
        return
    print(_table(found), end="", flush=True)


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a query.

    Raises:
        CiteflowError: the server cannot be reached, or says no.
    """
    try:
        response = requests.post(url, json=body, timeout=TIMEOUT_S, allow_redirects=False)
        values = response.json()
    except (requests.RequestException, ValueError) as error:
        reason = type(error).__name__
        hint = "start one with `citeflow serve`"
        raise UnavailableError(f"no answer ({reason}) from", redact_url(url), hint=hint) from None
    if not isinstance(values, dict):
        raise UnavailableError("not a server of citeflow", redact_url(url))
    if response.ok and isinstance(values.get("answers"), list):
        return values
    raise _error({"status": response.status_code, **values})


def _error(problem: dict[str, Any]) -> CiteflowError:
    kind = ERRORS.get(int(problem.get("status", 500)), CiteflowError)
    return kind(str(problem.get("detail", "no answer")), hint=str(problem.get("hint", "")))


def _table(found: dict[str, Any]) -> str:
    """Render an answer as `predict` does."""
    from citeflow.reporting import predictions

    log("ask", "answered", method=found["method"], candidates=found["num_candidates"])
    return predictions.to_table(predictions.from_json(found))
