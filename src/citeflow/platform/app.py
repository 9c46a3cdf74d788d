"""The application: the API below /api/v1, and the page at every other path."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Scope

from citeflow import __version__
from citeflow.platform.gate import Gate, protect
from citeflow.platform.page import STATIC, add_page
from citeflow.platform.routes import admin, environment, models, oidc, runs, session, uploads
from citeflow.platform.services import Services
from citeflow.serving.handlers import ERRORS
from citeflow.serving.metrics import RequestMetrics

PREFIX = "/api/v1"


def create_app(services: Services, *, static: Path = STATIC) -> FastAPI:
    """Make the application.

    Args:
        services: what the routes share; the queue is served while the application is.
        static: folder of the page.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.queue.start()
        tending = asyncio.create_task(services.trying.tend())
        yield
        tending.cancel()
        services.feeds.close()
        services.trying.close()
        services.queue.close()

    app = FastAPI(
        title="citeflow platform",
        version=__version__,
        summary="Environments, runs, models and users of a citeflow platform.",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        lifespan=lifespan,
        responses=ERRORS,
    )
    app.state.services = services
    metrics = RequestMetrics("citeflow_platform")
    for module in (session, oidc, environment, runs, uploads, models, admin):
        app.include_router(module.router, prefix=PREFIX)
    _add_health(app, metrics)
    add_page(app, static)
    protect(app, Gate(services.url), metrics, name="platform", is_streamed=_is_upload)
    return app


def _is_upload(scope: Scope) -> bool:
    is_post: bool = scope["method"] == "POST" and scope["path"] == f"{PREFIX}/uploads"
    return is_post


def _add_health(app: FastAPI, metrics: RequestMetrics) -> None:
    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, bool]:
        return {"live": True}

    @app.get("/metrics", include_in_schema=False)
    async def metrics_page() -> Response:
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return Response(metrics.page(), media_type=content_type)
