"""Errors over HTTP: one JSON object of the type application/problem+json each (RFC 9457)."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, JsonValue
from starlette.responses import Response

from citeflow.errors import (
    CiteflowError,
    ConfigError,
    DataError,
    NotFoundError,
    UnavailableError,
)

MEDIA_TYPE = "application/problem+json"

MAX_DETAIL = 300
"""Letters of a detail, which may quote what was sent."""

STATUS = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConfigError: HTTPStatus.UNPROCESSABLE_ENTITY,
    DataError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Of errors that a client can do something about; any other is the server's."""


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    hint: str = ""
    field: str = ""
    """Field of the request that is wrong, where it is one."""
    request_id: str


class ProblemError(Exception):
    """An error that a client is told."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        hint: str = "",
        field: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.field = field
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: CiteflowError) -> "ProblemError":
        """Describe an error of the library."""
        status = STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
        detail = f"{error.what}: {error.value}" if error.value else error.what
        return cls(status, detail, hint=error.hint)

    def to_json(self, request_id: str) -> dict[str, JsonValue]:
        """Return its fields; `error` repeats the detail for clients of the V2 protocol."""
        detail = self.detail if len(self.detail) <= MAX_DETAIL else f"{self.detail[:MAX_DETAIL]}..."
        values: dict[str, JsonValue] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": detail,
            "error": detail,
            "request_id": request_id,
        }
        more: dict[str, JsonValue] = {"hint": self.hint, "field": self.field}
        return {**values, **{name: value for name, value in more.items() if value}}

    def response(self, request_id: str) -> Response:
        """Return it as a response."""
        return json_response(
            self.to_json(request_id),
            status=self.status,
            media_type=MEDIA_TYPE,
            headers=self.headers,
        )


def json_response(
    content: object,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return JSON; letters outside of ASCII, lone surrogates among them, are escaped."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, dict(headers or {}), media_type)


def describe_invalid(errors: Sequence[Any]) -> str:
    """Say in one line what the first error of a validation is, without quoting the value.

    Args:
        errors: as pydantic lists them.
    """
    if not errors:
        return "not valid"
    first = errors[0]
    name = invalid_field(errors)
    message = str(first.get("msg", "not valid")).removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{name or 'body'}: {message}{more}"


def invalid_field(errors: Sequence[Any]) -> str:
    """Return the name of the first field that a validation refuses, "" where it is the body."""
    location = errors[0].get("loc", ()) if errors else ()
    return ".".join(str(part)[:40] for part in location if part != "body")
