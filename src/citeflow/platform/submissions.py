"""Submissions: what a user asks for is checked before a run goes into the queue."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from citeflow import config, own_model
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError
from citeflow.platform import forms, preview
from citeflow.platform.accounts import Account, check_name
from citeflow.platform.backends.base import Backend
from citeflow.platform.beneath import leads_beneath
from citeflow.platform.environments import Environments
from citeflow.platform.schema import Submission
from citeflow.platform.upload_bodies import UploadBody
from citeflow.platform.uploads import Uploads
from citeflow.serving.problems import ProblemError
from citeflow.tasks import get_task
from citeflow.utils.logging import redact_url

UPLOAD = "upload:"

CODE_SHARE = 0.75
"""Of the memory that goes with the cores of a run in its environment: for code, whose needs nobody
can estimate. The rest is for what stands around the training."""

LEAST_GIB = 1.0
"""Memory of a sandbox at the least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A submission that was checked."""

    settings: TaskConfig
    source: str
    """The dataset as a backend gets it."""

    label: str
    """The dataset as people call it, without secrets."""

    memory: int | None

    own: Mapping[str, UploadBody]
    """Files of a model of the user's own, by `code` and `weights`; settings hold their sha256."""


@dataclass(frozen=True, slots=True)
class Submissions:
    """Checks submissions against settings, uploads and quotas."""

    backend: Backend
    environments: Environments
    uploads: Uploads

    def plan(self, account: Account, wanted: Submission) -> Plan:
        """Check a submission, but for whether it fits.

        Raises:
            ProblemError: a field is wrong.
            NotFoundError: the user has no such upload.
        """
        if wanted.name:
            check_name(wanted.name)
        if wanted.model not in ("", forms.MODEL):
            detail = "no such model"
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, detail, hint=forms.MODEL, field="model"
            )
        own = self._own(account, wanted)
        digests = {name: upload.verdict.sha256 for name, upload in own.items()}
        settings = config.changed(_read_settings(wanted), {"model": digests})
        source, label, counts = self._source(account, wanted)
        memory = preview.memory(settings, wanted.workers, wanted.dataset, counts)
        if "code" in own:
            memory = max(memory or 0, self._memory_of_code(account, wanted.workers))
            limits = {"memory_gib": max(LEAST_GIB, memory / 2**30)}
            settings = config.changed(settings, {"sandbox": limits})
        return Plan(settings=settings, source=source, label=label, memory=memory, own=own)

    def bring(self, account: Account, planned: Plan) -> None:
        """Put the files of a model of one's own where the run looks for them, by their sha256.

        Raises:
            ConfigError: a file is no longer what was uploaded.
        """
        if not planned.own:
            return
        root = self.backend.folder(account.name)
        if not leads_beneath(root, root / own_model.FOLDER):
            raise ConfigError("the folder of models leads elsewhere", own_model.FOLDER)
        named = {
            name: str(self.uploads.path(account, upload).relative_to(root))
            for name, upload in planned.own.items()
        }
        brought = own_model.settle(config.changed(planned.settings, {"model": named}), root)
        if own_model.names(brought) != own_model.names(planned.settings):
            raise ConfigError("not the file that was uploaded", ", ".join(named.values()))

    def _own(self, account: Account, wanted: Submission) -> dict[str, UploadBody]:
        """Return the uploads that the settings of a submission name."""
        found = {}
        for setting, kind in forms.OWN.items():
            value = wanted.settings.get(setting, "")
            if _is_own(setting, value):
                found[kind] = self._upload(account, str(value), kind, f"settings.{setting}")
        return found

    def _upload(self, account: Account, value: str, kind: str, field: str) -> UploadBody:
        upload = self.uploads.get(account, value.removeprefix(UPLOAD))
        if upload.kind != kind:
            detail = f"not {kind}, but {upload.verdict.format}: {upload.name}"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=field)
        return upload

    def _memory_of_code(self, account: Account, workers: int) -> int:
        """Return the memory that a run with code may have, in bytes, if code can run at all."""
        if problem := self.backend.code_problem():
            detail, field = f"code cannot run here: {problem}", "settings.model.code"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=field)
        if account.size is None:
            return 0
        quota = self.backend.sizes()[account.size]
        return int(CODE_SHARE * quota.memory * min(1.0, workers / quota.cores))

    def _source(
        self, account: Account, wanted: Submission
    ) -> tuple[str, str, tuple[int, int] | None]:
        """Return a dataset as a backend gets it, as people call it, and papers and citations."""
        dataset = wanted.dataset
        if dataset.startswith(UPLOAD):
            upload = self._upload(account, dataset, "dataset", "dataset")
            counts = (upload.verdict.papers or 0, upload.verdict.citations or 0)
            return str(self.uploads.path(account, upload)), upload.name, counts
        if dataset in get_task(wanted.task).datasets:
            return dataset, dataset, None
        if not re.match(r"https?://", dataset):
            hint = f"{', '.join(get_task(wanted.task).datasets)}, an upload, or the URL of a file"
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "no such dataset", hint=hint, field="dataset"
            )
        check_url(dataset)
        return dataset, redact_url(dataset), None

    def objection(self, account: Account, workers: int, memory: int | None) -> str:
        """Say why a run can never start within the quota of its user; "" where it can."""
        if account.size is None:
            return "no environment yet: choose its size first"
        quota = self.backend.sizes()[account.size]
        if workers > quota.cores:
            return f"{workers} workers need as many cores; the environment has {quota.cores}"
        if memory is not None and memory > quota.memory:
            return f"it needs {_gib(memory)} of memory; the environment has {_gib(quota.memory)}"
        if self.environments.disk(account.name) > quota.disk:
            return f"your files take more than the {_gib(quota.disk)} of the environment"
        return ""


def check_url(url: str) -> None:
    """Check that a URL leads to another machine: the server would fetch what only it may see.

    Raises:
        ProblemError: it leads here, or to an address that only this machine has.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"no such server: {host}", field="dataset"
        ) from None
    for address in found:
        ip = ipaddress.ip_address(address.partition("%")[0])
        if ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast:
            detail = f"not a server that data may come from: {host}"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="dataset")


def _read_settings(wanted: Submission) -> TaskConfig:
    try:
        given = {name: value for name, value in wanted.settings.items() if not _is_own(name, value)}
        return forms.read_settings(wanted.task, wanted.preset, given)
    except ConfigError as error:
        problem = ProblemError.of(error)
        named = [name for name in (error.what, error.value) if name in wanted.settings]
        problem.field = ".".join(["settings", *named[:1]])
        raise problem from None


def _is_own(name: str, value: object) -> bool:
    return name in forms.OWN and isinstance(value, str) and value.startswith(UPLOAD)


def _gib(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"
