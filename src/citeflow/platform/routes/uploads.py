"""Uploads of a user."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request

from citeflow.platform.runs import id_of
from citeflow.platform.services import Key, Shared, User
from citeflow.platform.upload_bodies import Offer, UploadBody, UploadList
from citeflow.serving.problems import ProblemError

router = APIRouter(tags=["uploads"])

BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/uploads", status_code=HTTPStatus.CREATED, openapi_extra=BODY)
async def upload(
    request: Request,
    account: User,
    shared: Shared,
    name: Annotated[str, Query(max_length=200)],
    kind: Offer = "dataset",
    key: Key = "",
) -> UploadBody:
    """Take a file, which is the body, and say what it is; one of another kind is refused."""
    upload_id = id_of(account.name, f"upload {key}" if key else "")
    try:
        made = await shared.uploads.receive(
            account, name, request.stream(), offer=kind, upload_id=upload_id
        )
    except ProblemError:
        # Not why: that may quote the file, which is nobody's business but the user's.
        shared.accounts.note(account.name, "upload", name, "refused")
        raise
    shared.accounts.note(account.name, "upload", made.name, made.verdict.format)
    return made


@router.get("/uploads")
def list_uploads(account: User, shared: Shared) -> UploadList:
    """List the uploads, the newest first."""
    return UploadList(uploads=shared.uploads.list(account))


@router.delete("/uploads/{upload_id}", status_code=HTTPStatus.NO_CONTENT)
def delete_upload(upload_id: str, account: User, shared: Shared) -> None:
    """Delete an upload."""
    shared.uploads.delete(account, upload_id)
    shared.accounts.note(account.name, "delete upload", upload_id, "done")
