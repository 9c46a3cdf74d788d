"""Uploads: datasets and models of users, streamed to the disk and looked at by a confined process.

A file is known by its content: `citeflow inspect` says what data are, `model_file` what a model is,
and they refuse with a line what citeflow does not read. Nothing of a file that is refused stays.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError
from sqlalchemy import Row, delete, insert, select

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.platform import confined, model_file, store
from citeflow.platform.accounts import Account
from citeflow.platform.backends.base import Backend
from citeflow.platform.beneath import leads_beneath
from citeflow.platform.environments import Environments, size_of
from citeflow.platform.store import Store
from citeflow.platform.upload_bodies import Offer, UploadBody, Verdict
from citeflow.serving.problems import ProblemError

MAX_BYTES = 2 << 30
"""Of an upload; what is larger comes by URL."""

MAX_MODEL_BYTES = 50 << 20
"""Of a model."""

MAX_UPLOADS = 200
"""Of one user."""

STALL_S = 60.0
"""Longest pause within a body."""

INSPECT_S = 600.0
MODEL_S = 60.0
"""Longest time to look at data, and at a model."""

MEMORY = 6 << 30
MODEL_MEMORY = 2 << 30
"""Address space of the process that looks at data, and at a model; it does not import torch."""

EXPANSION = 50
"""Bytes that a file may become while it is looked at, by its own; a zip bomb becomes more."""

LEAST_BYTES = 512 << 20
"""The same, of a small file."""

LOOK_S = 0.2
INSPECTIONS_AT_A_TIME = 2

_NAME = re.compile(r"[\w.+() -]{1,120}")


@dataclass(frozen=True, slots=True)
class Uploads:
    """The uploads of all users."""

    store: Store
    backend: Backend
    environments: Environments
    _turns: asyncio.Semaphore

    async def receive(
        self,
        account: Account,
        name: str,
        body: AsyncIterator[bytes],
        *,
        offer: Offer = "dataset",
        upload_id: str,
    ) -> UploadBody:
        """Take an upload.

        Args:
            account: whose it is.
            name: of the file.
            body: its content.
            offer: what it has to be.
            upload_id: one that is there already is a repeat, whose body is not read.

        Raises:
            ProblemError: it is too large, too slow, or not what it has to be.
        """
        with contextlib.suppress(NotFoundError):
            return await asyncio.to_thread(self.get, account, upload_id)
        check_name(name)
        room = await asyncio.to_thread(self._room, account, offer)
        folder = self._folder(account) / upload_id
        with files.scratch_directory(self._folder(account)) as work:
            path = work / name
            size = await self._save(path, body, room)
            async with self._turns:
                verdict = await asyncio.to_thread(inspect, path, work, offer)
            with files.new_directory(folder) as made:
                os.link(path, made / name)
        values = {
            "id": upload_id,
            "user": account.name,
            "name": name,
            "kind": _kind(offer, verdict),
            "bytes": size,
            "created": store.now(),
            "verdict": verdict.model_dump(),
        }
        await asyncio.to_thread(self._add, values)
        return await asyncio.to_thread(self.get, account, upload_id)

    def list(self, account: Account) -> list[UploadBody]:
        """Return the uploads of a user, the newest first."""
        query = select(store.uploads).where(store.uploads.c.user == account.name)
        with self.store.read() as connection:
            rows = connection.execute(query.order_by(store.uploads.c.created.desc())).all()
        return [_body(row) for row in rows]

    def get(self, account: Account, upload_id: str) -> UploadBody:
        """Return an upload.

        Raises:
            NotFoundError: the user has none of this id.
        """
        own = (store.uploads.c.id == upload_id) & (store.uploads.c.user == account.name)
        with self.store.read() as connection:
            row = connection.execute(select(store.uploads).where(own)).one_or_none()
        if row is None:
            raise NotFoundError("no such upload", upload_id)
        return _body(row)

    def path(self, account: Account, upload: UploadBody) -> Path:
        """Return where the file of an upload is."""
        return self._folder(account) / upload.id / upload.name

    def delete(self, account: Account, upload_id: str) -> None:
        """Delete an upload; runs keep what they have read.

        Raises:
            NotFoundError: the user has none of this id.
        """
        self.get(account, upload_id)
        files.delete_directory(self._folder(account) / upload_id)
        with self.store.write() as connection:
            connection.execute(delete(store.uploads).where(store.uploads.c.id == upload_id))

    def _add(self, values: dict[str, object]) -> None:
        with self.store.write() as connection:
            connection.execute(insert(store.uploads).values(**values))

    def _folder(self, account: Account) -> Path:
        root = self.backend.folder(account.name)
        folder = root / "uploads"
        if not leads_beneath(root, folder):  # on a cluster, pods of the user may have moved it
            raise CorruptError("the folder of uploads leads elsewhere", folder.name)
        return folder

    def _room(self, account: Account, offer: Offer) -> int:
        """Return how many bytes an upload of the user may have."""
        quota = self.environments.quota(account)
        if len(self.list(account)) >= MAX_UPLOADS:
            detail = f"there are {MAX_UPLOADS} uploads of yours already"
            raise ProblemError(HTTPStatus.CONFLICT, detail, hint="delete some first")
        most = MAX_BYTES if offer == "dataset" else MAX_MODEL_BYTES
        return min(most, quota.disk - self.environments.disk(account.name))

    async def _save(self, path: Path, body: AsyncIterator[bytes], room: int) -> int:
        size = 0
        with files.open_stream(path) as file:
            try:
                while True:
                    async with asyncio.timeout(STALL_S):
                        chunk = await anext(body, None)
                    if chunk is None:
                        break
                    size += len(chunk)
                    if size > room:
                        raise _too_large(room)
                    await asyncio.to_thread(_write, file, chunk)
            except TimeoutError:
                detail = f"nothing of the body came for {STALL_S:g} s"
                raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, detail) from None
            await asyncio.to_thread(os.fsync, file.fileno())
        if not size:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the file is empty")
        return size


def check_name(name: str) -> None:
    """Check the name of a file, which becomes one of a folder of its own.

    Raises:
        ProblemError: it could be a path, hidden, or hard to read.
    """
    if not _NAME.fullmatch(name) or name.startswith((".", "-", " ")) or name.endswith(" "):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "not the name of a file",
            hint="letters, digits and . _ - + ( ), 120 at most",
            field="name",
        )


def inspect(path: Path, work: Path, offer: Offer = "dataset") -> Verdict:
    """Look at a file in a confined process.

    Args:
        path: the file.
        work: a folder for what has to be unpacked; it may grow by some times the file.
        offer: what it has to be.

    Raises:
        ProblemError: it is not that, or takes too much time, memory or disk.
    """
    size = path.stat().st_size
    most = max(LEAST_BYTES, EXPANSION * size)
    scratch = work / "scratch"
    scratch.mkdir()
    is_data = offer == "dataset"
    seconds = INSPECT_S if is_data else MODEL_S
    command = [
        *(sys.executable, "-P", "-m", confined.MODULE),
        *(str(MEMORY if is_data else MODEL_MEMORY), str(int(seconds)), str(most)),
        *(sys.executable, "-P", "-m"),
        *(("citeflow", "inspect") if is_data else (model_file.MODULE,)),
        str(path),
    ]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=scratch,
        env={"PATH": os.environ.get("PATH", ""), "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        output, errors = _wait(child, scratch, most, seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.returncode:
        raise _refusal(errors, str(work))
    return _verdict(output) if is_data else _verdict_on_model(output)


def _wait(
    child: "subprocess.Popen[bytes]", scratch: Path, most: int, seconds: float
) -> tuple[str, str]:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, errors = child.communicate(timeout=LOOK_S)
            return output.decode(errors="replace"), errors.decode(errors="replace")
        if time.monotonic() > deadline:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "it takes too long to read")
        if size_of(scratch) > most:
            detail = "it becomes far larger than it is when it is unpacked"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _refusal(errors: str, work: str) -> ProblemError:
    """Return the error that `citeflow inspect` has printed, without the server's folders."""
    said = errors.replace(f"{work}/scratch/", "").replace(f"{work}/", "")
    found = dict(re.findall(r"^(error|hint): (.+)$", said, re.MULTILINE))
    detail = found.get("error", "it takes more memory or disk to read than it may")
    hint = found.get("hint", "")
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, hint=hint)


def _verdict(output: str) -> Verdict:
    try:
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        papers, citations = int(found["papers"]), int(found["citations"])
        remarks = [str(each) for each in (*found["warnings"], *found["remarks"])]
        if not found["is_readable"]:
            detail = remarks[0] if remarks else "it cannot be trained on"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        return Verdict(
            format=str(found["format"]),
            summary=f"{papers:,} papers, {citations:,} citations",
            warnings=remarks[:20],
            papers=papers,
            citations=citations,
        )
    except (ValueError, KeyError, IndexError, TypeError, ValidationError):
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "it cannot be read") from None


def _verdict_on_model(output: str) -> Verdict:
    try:
        return Verdict.model_validate_json(output)
    except ValidationError:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "it cannot be read") from None


def _kind(offer: Offer, verdict: Verdict) -> str:
    if offer == "dataset":
        return offer
    return "code" if verdict.parameters is None else "weights"


def _too_large(room: int) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the file has more than the {max(0, room):,} bytes that it may have",
        hint="delete what you no longer need; data may come by URL, too",
        headers={"Connection": "close"},
    )


def _write(file: BinaryIO, chunk: bytes) -> None:
    file.write(chunk)


def _body(row: Row[tuple[Any, ...]]) -> UploadBody:
    return UploadBody.model_validate(dict(row._mapping))
