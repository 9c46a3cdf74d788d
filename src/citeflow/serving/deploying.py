"""Deploy by file: put an index where running servers look for it.

A service is a folder of the volume with a copy of each index under its digest, and the link
`current`. A server with `--watch` follows the link. So deploying needs no right on the cluster, a
server whose index is replaced still has all files of the old one, and a run can be removed while
its index is served.
"""

import re
from pathlib import Path

from citeflow import files, paths
from citeflow.artifacts import SERVING_INDEX
from citeflow.errors import ConfigError
from citeflow.utils.logging import log

CURRENT = "current"
"""Link in the folder of a service to the index that is served."""

WAIT_S = 600.0
"""For another run that deploys to the same service: it copies gigabytes."""

_VERSION = re.compile(r"[0-9a-f]{16}")


def service_folder(data_root: Path, service: str) -> Path:
    """Return the folder of a service; the manifests of the server name it too.

    Raises:
        ConfigError: it is no name, or something else has that name.
    """
    folder = data_root / "serving" / paths.check_name(service)
    link = folder / CURRENT
    if link.exists() and not link.is_symlink():
        hint = "deploy under another name, or remove it"
        raise ConfigError("not the link that deploying makes", link, hint=hint)
    return folder


def deploy(index: Path, folder: Path) -> Path:
    """Let the servers of a service take up an index; it and the one before it are kept.

    Args:
        index: a ServingIndex.
        folder: of the service.

    Returns:
        The copy that is served from now on.
    """
    version = folder / files.read_manifest(index, SERVING_INDEX).sha256[:16]
    link = folder / CURRENT
    with files.exclusive(folder / ".lock", wait_s=WAIT_S):
        if not version.exists():  # it appears whole
            log("index", "copying", to=version)
            files.copy_directory(index, version)
        before = link.resolve()
        if before != version.resolve():
            files.link_directory(version, link)
            _delete_versions(folder, keep={version.name, before.name})
    log("index", "deployed", service=folder.name, version=version.name)
    return version


def _delete_versions(folder: Path, *, keep: set[str]) -> None:
    for name in files.names_in(folder):
        if _VERSION.fullmatch(name) and name not in keep:
            files.delete_directory(folder / name)
