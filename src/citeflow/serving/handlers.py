"""Answers to the errors of an application: each kind as a problem."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from citeflow.errors import CiteflowError
from citeflow.serving.guard import REQUEST_ID
from citeflow.serving.problems import (
    MEDIA_TYPE,
    ProblemBody,
    ProblemError,
    describe_invalid,
    invalid_field,
)

ERRORS: dict[int | str, dict[str, object]] = {
    "default": {
        "description": "An error",
        "content": {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}},
    }
}
"""Of every route, for its OpenAPI page."""


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response(request.scope[REQUEST_ID])


async def _on_citeflow_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CiteflowError)
    return ProblemError.of(error).response(request.scope[REQUEST_ID])


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    problem = ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY, describe_invalid(errors), field=invalid_field(errors)
    )
    return problem.response(request.scope[REQUEST_ID])


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    problem = ProblemError(HTTPStatus(error.status_code), str(error.detail), headers=headers)
    return problem.response(request.scope[REQUEST_ID])


HANDLERS = {
    ProblemError: _on_problem,
    CiteflowError: _on_citeflow_error,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http_exception,
}


class LimitedRoute(APIRoute):
    """A route that reads the body before FastAPI, which takes a limit for broken JSON."""

    async def admit(self, request: Request) -> None:
        """Refuse a request before its body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request of this route."""
        handle = super().get_route_handler()

        async def handle_admitted(request: Request) -> Response:
            await self.admit(request)
            await request.body()
            return await handle(request)

        return handle_admitted
