"""`citeflow doctor`: what is missing, and what to do about it."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from citeflow.cli import options
from citeflow.cli.submit import add_connection, connected
from citeflow.doctor import Finding, local, machine, show
from citeflow.errors import ConfigError, UnavailableError
from citeflow.kubeflow.client import STANDALONE
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.utils.logging import emit

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "doctor", _call, "say what this machine or the cluster lacks; 69 if any"
    )
    kinds = list(LAUNCHERS)
    parser.add_argument("--launcher", choices=kinds, default=kinds[0], help=f"default: {kinds[0]}")
    parser.add_argument(
        "--service-account", default="", metavar="NAME", help="whose rights; by default your own"
    )
    parser.add_argument(
        "--local", action="store_true", help="this machine only, and what a local run ignores"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per check")
    options.add_data_root(parser)
    add_connection(parser)


def _call(args: argparse.Namespace) -> None:
    missing = []
    for found in _findings(args):
        if args.json:
            emit(asdict(found))
        else:
            show(found)
        missing += [found.what] if found.status == "missing" else []
    if missing:
        raise UnavailableError("missing", ", ".join(missing), hint="the lines above say what to do")


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    yield from machine.check(options.data_root(args), trains_here=args.local)
    if args.local:
        yield from local.check()
        return
    try:
        options.require("kfp", "kubernetes", "kubeflow")
    except UnavailableError as error:
        yield Finding(
            status="note",
            what="cluster",
            value=f"not looked at: no package {error.value}",
            hint=error.hint,
        )
        return
    is_there = True
    for found in _cluster(args):
        is_there = is_there and found.what != "cluster"
        yield found
    if args.host or is_there or os.environ.get("KF_PIPELINES_ENDPOINT"):
        from citeflow.doctor import pipelines

        yield from pipelines.check(lambda: connected(args))


def _cluster(args: argparse.Namespace) -> Iterator[Finding]:
    from citeflow.doctor import cluster
    from citeflow.kubernetes import client

    try:
        found = client.connect(namespace=args.namespace or _default_namespace())
    except ConfigError as error:
        value = f"not looked at: {error.what}: {error.value}"
        is_asked = args.host or args.namespace or args.service_account
        yield Finding(
            status="missing" if is_asked else "note", what="cluster", value=value, hint=error.hint
        )
        return
    try:
        yield from cluster.check(
            found, launcher=LAUNCHERS[args.launcher], service_account=args.service_account
        )
    finally:
        found.api.close()


def _default_namespace() -> str:
    """That of the pod this runs in, which `connect` knows; elsewhere that of Kubeflow Pipelines alone."""
    from citeflow.kubernetes.client import SERVICE_ACCOUNT

    return "" if (SERVICE_ACCOUNT / "token").is_file() else STANDALONE
