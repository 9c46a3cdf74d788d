"""`citeflow submit`: upload the pipeline to Kubeflow Pipelines and run it there."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from citeflow import config
from citeflow.cli import options
from citeflow.errors import ConfigError, NotFoundError
from citeflow.kubeflow import local_runner, submit
from citeflow.kubeflow.client import Server, check_ended_well, connect
from citeflow.utils.logging import emit, log, redact_url

if TYPE_CHECKING:
    from citeflow.cli.options import Commands

NAMED = ("dataset", "workers", "launcher")
"""Parameters of the pipeline that have an option of their own."""


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "submit", _call, "run the pipeline on Kubeflow Pipelines"
    )
    add_connection(parser)
    _add_run(parser)
    _add_package(parser)
    options.add_settings(parser)


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the server is and who asks."""
    group = parser.add_argument_group("server, by default found as kfp.Client does")
    group.add_argument(
        "--host",
        default="",
        metavar="URL",
        help="of its API or UI (default: $KF_PIPELINES_ENDPOINT)",
    )
    group.add_argument(
        "--namespace", default="", metavar="NS", help="of your profile, or of the pods (kubeflow)"
    )
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="bearer token; read again when it changes"
    )
    group.add_argument(
        "--ssl-ca-cert", type=Path, metavar="FILE", help="certificate authority of the server, PEM"
    )


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout-minutes`."""
    parser.add_argument(
        "--timeout-minutes",
        type=options.positive,
        default=1440,
        metavar="N",
        help="longest wait (default: a day)",
    )


def connected(args: argparse.Namespace) -> Server:
    """The server that the options name."""
    if redact_url(args.host).rstrip("/") != args.host.rstrip("/"):
        raise ConfigError(
            "no user, password or query in --host",
            redact_url(args.host),
            hint="--token-file FILE",
        )
    return connect(
        host=args.host,
        namespace=args.namespace,
        token_file=args.token_file,
        ssl_ca_cert=args.ssl_ca_cert,
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--dataset", metavar="D", help="synthetic, ogbl-citation2, a folder on the volume, or a URL"
    )
    group.add_argument("--workers", metavar="N", help="training processes")
    group.add_argument("--launcher", metavar="L", help="local, pytorchjob or trainjob")
    group.add_argument(
        "--job",
        metavar="YAML",
        default="",
        help='what each pod of a job gets: a file, or "{cpu: 4}"',
    )
    group.add_argument(
        "--param", action="append", default=[], metavar="KEY=VALUE", help="any parameter"
    )
    group.add_argument(
        "--experiment", default="", metavar="NAME", help="made if there is none (default: citeflow)"
    )
    group.add_argument(
        "--run-name", default="", metavar="NAME", help="on the run page (default: dataset and time)"
    )
    group.add_argument(
        "--service-account", default="", metavar="NAME", help="that the steps run as"
    )
    group.add_argument(
        "--recurring", default="", metavar="CRON", help="a recurring run; six fields, seconds first"
    )
    group.add_argument(
        "--max-concurrency",
        type=options.positive,
        default=1,
        metavar="N",
        help="of a recurring run",
    )
    group.add_argument(
        "--catchup", action="store_true", help="make up for runs that a recurring run missed"
    )
    group.add_argument(
        "--wait",
        action="store_true",
        help="until the run has ended; 75 if it failed, 143 if cancelled",
    )
    add_wait(group)  # type: ignore[arg-type]
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be sent, and send nothing"
    )


def _add_package(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pipeline")
    group.add_argument(
        "--pipeline", default="citation", choices=local_runner.NAMES, help="(default: citation)"
    )
    group.add_argument(
        "--pipeline-name", default="", metavar="NAME", help="on the server (default: as --pipeline)"
    )
    group.add_argument(
        "--pipeline-version", default="", metavar="NAME", help="default: citeflow-VERSION+COMMIT"
    )
    group.add_argument("--step-image", default="", metavar="IMAGE", help="of every step")
    group.add_argument(
        "--train-image", default="", metavar="IMAGE", help="of a PyTorchJob's or TrainJob's workers"
    )
    group.add_argument(
        "--no-cache", action="store_true", help="run every step, whatever was computed before"
    )
    group.add_argument("--upload-only", action="store_true", help="start no run")


def _call(args: argparse.Namespace) -> None:
    if args.recurring and args.wait:
        raise ConfigError(
            "--wait is for one run",
            "--recurring",
            hint="`citeflow runs watch RUN` waits for another",
        )
    planned = submit.plan(
        _parameters(args),
        compiled=args.pipeline,
        pipeline_name=args.pipeline_name,
        version=args.pipeline_version,
        experiment=args.experiment,
        run_name=args.run_name,
        step_image=args.step_image,
        train_image=args.train_image,
        use_cache=not args.no_cache,
        service_account=args.service_account,
        cron=args.recurring,
        max_concurrency=args.max_concurrency,
        catchup=args.catchup,
    )
    if args.dry_run:
        emit(submit.described(planned))
        return
    server = connected(args)
    if args.upload_only:
        emit(submit.upload(server, planned))
        return
    made = submit.submit(server, planned)
    log("submit", "see", page=made["url"])
    if args.wait:
        finish(server, made, args.timeout_minutes)
    else:
        emit(made)


def finish(server: Server, made: dict[str, Any], timeout_minutes: int) -> None:
    """Wait for a run to end and print what is known of it, whichever way it ends.

    Raises:
        TrainingError, StoppedError: it did not succeed.
        UnavailableError: it has not ended in time.
    """
    run = server.wait(made["run_id"], timeout_s=60.0 * timeout_minutes)
    emit({**made, "state": run.state})
    check_ended_well(run)


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the pipeline's parameters."""
    given: dict[str, Any] = {
        name: getattr(args, name) for name in NAMED if getattr(args, name) is not None
    }
    if args.preset != "default":
        given["preset"] = args.preset
    if args.config or args.set:
        given["settings"] = _differences(args)
    if args.job:
        given["job"] = options.yaml_text(args.job)
    for pair in args.param:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(
                "not of the form KEY=VALUE", pair, hint="for example --param epochs=3"
            )
        if name in given:
            raise ConfigError("parameter is given twice", name)
        given[name] = value
    return given


def _differences(args: argparse.Namespace) -> str:
    """The settings that are not as the preset has them, as YAML text: what stays legible in the run form."""
    wanted, preset = options.resolved(args).to_dict(), config.load(preset=args.preset).to_dict()
    changed = {
        name: {key: value for key, value in section.items() if value != preset[name][key]}
        for name, section in wanted.items()
    }
    changed = {name: section for name, section in changed.items() if section}
    return yaml.safe_dump(changed, sort_keys=False) if changed else ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError("no such file", path) from None
    except UnicodeDecodeError:
        raise ConfigError("not a text file", path) from None
