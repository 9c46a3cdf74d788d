"""`citeflow launch` and `citeflow reap`: jobs on a cluster, without a pipeline."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from citeflow import files, paths
from citeflow.cli import options
from citeflow.errors import ConfigError
from citeflow.kubernetes import job_spec as train_spec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.utils.logging import emit

if TYPE_CHECKING:
    from citeflow.cli.options import Commands

BY_HAND = "by-hand"
"""Stands in for the id of a run where there is none."""


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    _add_launch(commands)
    _add_reap(commands)


def _add_launch(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "launch", _launch, "train in the pods of a job on a cluster"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"settings of a job and their defaults, for --job:\n\n{train_spec.to_yaml(train_spec.JobSpec())}"
    parser.add_argument(
        "graph", type=Path, help="folder that `preprocess` made, at the path where the pods see it"
    )
    parser.add_argument(
        "--run-name", type=paths.check_name, required=True, metavar="NAME", help="a-z, 0-9 and -"
    )
    parser.add_argument(
        "--run-id", default=BY_HAND, metavar="ID", help="id of the pipeline run, if there is one"
    )
    kinds = list(LAUNCHERS)
    parser.add_argument("--launcher", choices=kinds, default=kinds[0], help=f"default: {kinds[0]}")
    parser.add_argument(
        "--job", metavar="YAML", default="", help='what the job gets: a file, or "{cpu: 4}"'
    )
    parser.add_argument(
        "--namespace",
        default="",
        metavar="NS",
        help="default: that of this pod, or of the kubeconfig",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the object that would be sent, and end"
    )
    options.add_workers(parser)
    options.add_data_root(parser)
    options.add_settings(parser)


def _add_reap(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "reap", _reap, "delete jobs whose pipeline run or step has ended"
    )
    parser.add_argument(
        "--namespace",
        default="",
        metavar="NS",
        help="default: that of this pod, or of the kubeconfig",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say which")


def _launch(args: argparse.Namespace) -> None:
    config = options.resolved(args)
    run = paths.RunPaths(options.data_root(args), args.run_name)
    options.require("kubernetes", "kubeflow")
    from citeflow.kubernetes.job_spec import JobRequest
    from citeflow.kubernetes.launch import render_job, train_on_cluster
    from citeflow.training.launch import make_job

    spec = train_spec.from_yaml(options.yaml_text(args.job), workers=args.workers)
    train_spec.check_mounted(spec, run.folder)
    request = JobRequest(
        launcher=args.launcher, spec=spec, run_id=args.run_id, namespace=args.namespace
    )
    if args.dry_run:
        task = make_job(args.graph, run, config)
        yaml.safe_dump(
            render_job(request, run, namespace_of(args), task), sys.stdout, sort_keys=False
        )
        return
    files.read_manifest(args.graph, "PreparedGraph")
    options.require("torch")
    model = train_on_cluster(args.graph, run, config=config, request=request)
    emit({"path": str(model), **files.read_manifest(model, "TrainedModel").facts})


def namespace_of(args: argparse.Namespace) -> str:
    """Where a job would be created, without asking the cluster."""
    from citeflow.kubernetes.client import connect

    with contextlib.suppress(ConfigError):
        return connect(namespace=args.namespace).namespace
    return args.namespace or "default"


def _reap(args: argparse.Namespace) -> None:
    options.require("kubernetes")
    from citeflow.kubernetes.client import connect
    from citeflow.kubernetes.reaper import reap

    emit(
        {"deleted": reap(connect(namespace=args.namespace, patience_s=60.0), dry_run=args.dry_run)}
    )
