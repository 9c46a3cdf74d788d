"""The command `citeflow`: stdout is data, stderr is log, the exit code is the kind of an error."""

import importlib
import io
import keyword
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import shell_complete

from citeflow import __version__, own_model
from citeflow.cli import live, options
from citeflow.cli.local_run import LocalRun, local_run
from citeflow.errors import CiteflowError, ConfigError, to_user_error
from citeflow.paths import RunPaths
from citeflow.tasks import get_task
from citeflow.tasks.base import Results
from citeflow.utils.logging import emit, log
from citeflow.utils.signals import handle_signals

SECTIONS = {
    "Pipeline on this machine": {"run": "main"},
    "Data": {
        "inspect": "data",
        "import": "data",
        "init": "data",
        "download": "stages",
        "preprocess": "stages",
    },
    "Train": {
        "train": "stages",
        "evaluate": "stages",
        "publish": "stages",
        "predict": "predict",
        "models": "models",
    },
    "Serve": {"index": "serve", "serve": "serve", "ask": "ask"},
    "Platform": {"platform": "platform", "user": "platform"},
    "Kubeflow": {
        "compile": "compile",
        "submit": "submit",
        "runs": "runs",
        "launch": "cluster",
        "reap": "cluster",
    },
    "Experiments": {"scaling": "experiments", "compare": "experiments", "tune": "experiments"},
    "Set-up": {"settings": "settings", "doctor": "doctor"},
}
"""Commands by section of the help; each is a function of its name in a module of this package,
which is imported when it is called: nobody waits for what the other commands need."""

MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()}

COMPLETION_VARIABLE = "_CITEFLOW_COMPLETE"

OUTPUT_CLOSED = 141
"""As a shell reports SIGPIPE: nobody reads on, as behind `| head`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(citeflow, {}, "citeflow", COMPLETION_VARIABLE, instruction)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal, or an image, of ASCII must not end a run by a dash in its table.
        sys.stdout.reconfigure(errors="backslashreplace")
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with handle_signals(), citeflow.make_context("citeflow", args) as context:
            citeflow.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:  # --help, --version
        return ended.exit_code
    except SystemExit as ended:  # a stage, which has printed its error
        return ended.code if isinstance(ended.code, int) else 1
    except BrokenPipeError:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except click.ClickException as usage:
        return _report(_usage_error(usage))
    except Exception as error:
        return _report(to_user_error(error))
    return 0


def _report(error: CiteflowError) -> int:
    print(error, file=sys.stderr, flush=True)
    return error.exit_code


def _usage_error(error: click.ClickException) -> ConfigError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "citeflow"
    message = " ".join(error.format_message().split()).rstrip(".")
    return ConfigError(message, hint=f"{path} --help")


class SectionedGroup(click.Group):
    """A group that lists its commands by section, and imports each when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the help."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(f"citeflow.cli.{MODULES[cmd_name]}")
        # A function cannot be named `import`.
        function = cmd_name + "_" * keyword.iskeyword(cmd_name)
        command: click.Command = getattr(module, function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a definition list per section."""
        width = formatter.width - 6 - max(map(len, MODULES))
        for section, names in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, each.get_short_help_str(width)) for name, each in commands if each]
            with formatter.section(section):
                formatter.write_dl(rows)


def _epilog() -> str:
    meanings = {
        0: "Success.",
        CiteflowError.exit_code: "citeflow itself, or the system below it, failed.",
        130: "Ctrl-C.",
        OUTPUT_CLOSED: "Nobody reads on.",
    }
    for kind in CiteflowError.__subclasses__():
        meanings[kind.exit_code] = (kind.__doc__ or "").splitlines()[0]
    lines = [f"  {code:>3}  {meaning}" for code, meaning in sorted(meanings.items())]
    completion = f'eval "$({COMPLETION_VARIABLE}=bash_source citeflow)"'
    shells = "in ~/.bashrc; there are zsh_source and fish_source too"
    return "\n".join(["\b", "Exit codes:", *lines, f"\n\b\nCompletion: {completion}", shells])


@click.group(
    cls=SectionedGroup,
    no_args_is_help=False,
    epilog=_epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="citeflow", message="%(prog)s %(version)s")
def citeflow() -> None:
    """Find the citations that are missing from a citation network."""


@click.command(cls=options.RecordCommand)
@options.workers_here
@options.output
@click.option(
    "--deploy",
    default="",
    metavar="NAME",
    help="Make an index of the model, at serving/NAME/current below the data root, which "
    "`citeflow serve --watch` follows.",
)
@live.option
@local_run
@options.settings
def run(
    here: options.WorkersHere,
    out: Path | None,
    deploy: str,
    with_page: bool,
    local: LocalRun,
    settings: options.Settings,
) -> None:
    """Run the whole pipeline on this machine."""
    resolved = settings.resolve()
    options.require("kfp", "torch")
    if with_page:
        live.require()
    here.settle()
    from citeflow.kubeflow.local_runner import run_pipeline
    from citeflow.kubeflow.pipelines import PIPELINES
    from citeflow.reporting import mlflow_client
    from citeflow.reporting.publish import check_output_folders

    if deploy and own_model.has_code(resolved):
        raise ConfigError("--deploy", "model.code", hint="such a model cannot be served")
    paths = local.paths()
    folder = out or paths.published
    mlflow_client.check()
    check_output_folders(paths.data_root, folder)
    shared = local.arguments(paths, resolved)
    own: dict[str, str | int] = {
        "workers": here.workers,
        "launcher": here.launcher,
        "out_dir": str(folder),
        "deploy": deploy,
    }
    arguments = {**shared, **own}
    compiled = PIPELINES[resolved.task].compiled()
    page = live.not_opened()
    if with_page:
        page = live.opened(
            paths, resolved, dataset=local.dataset, workers=here.workers, published=folder
        )
    with page as open_page:
        with local.started(paths, open_page):
            run_pipeline(compiled, arguments, scratch=paths.data_root, verbose=local.verbose)
        _print_results(get_task(resolved.task).results(folder), folder, paths)


def _print_results(results: Results, folder: Path, paths: RunPaths) -> None:
    """Print the scores for people, and the paths of the results for programs."""
    print(f"\n{results.table()}", file=sys.stderr, flush=True)
    log("run", "done", page=folder / "report.html", tensorboard=f"--logdir {paths.logs.parent}")
    emit(
        {
            "report": str(folder / "report.json"),
            "page": str(folder / "report.html"),
            "model": str(folder / "model"),
            "logs": str(paths.logs),
            "test": results.test(),
        }
    )
