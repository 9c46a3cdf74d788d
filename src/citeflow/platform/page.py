"""The files of the page."""

import gzip
import mimetypes
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response

from citeflow.platform.gate import PAGE_POLICY
from citeflow.serving.problems import ProblemError

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
ASSETS = "assets/"
"""Folder of files whose names change with their content."""


def add_page(app: FastAPI, static: Path) -> None:
    """Serve the files of the page by their names, and the page itself at every other path.

    They are kept in memory, as they are and compressed: all of them are a few hundred kilobytes.
    """
    contents = {
        file.relative_to(static).as_posix(): file.read_bytes()
        for file in static.rglob("*")
        if file.is_file()
    }

    compressed = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}

    @app.get("/{path:path}", include_in_schema=False)
    async def page(path: str, request: Request) -> Response:
        if path.startswith("api/") or (path.startswith(ASSETS) and path not in contents):
            raise ProblemError(HTTPStatus.NOT_FOUND, "no such page")
        name = path if path in contents else INDEX
        if name not in contents:
            detail = "the page is not built"
            raise ProblemError(HTTPStatus.NOT_FOUND, detail, hint="`npm run build` in web/")
        is_fixed = name.startswith(ASSETS)
        headers = {
            "Content-Security-Policy": PAGE_POLICY,
            "Cache-Control": "public, max-age=31536000, immutable" if is_fixed else "no-cache",
        }
        content = contents[name]
        if "gzip" in request.headers.get("accept-encoding", ""):
            content = compressed[name]
            headers |= {"Content-Encoding": "gzip"}
        headers |= {"Vary": "Accept-Encoding"}
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, media_type=media_type, headers=headers)
