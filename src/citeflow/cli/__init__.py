"""The command `citeflow`: stdout is data, stderr is log, and the exit code says what kind of thing went wrong."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from citeflow import __version__
from citeflow.cli import (
    cluster,
    compile,
    doctor,
    experiments,
    predict,
    run,
    runs,
    settings,
    submit,
    tune,
    verbs,
)
from citeflow.errors import CiteflowError, ConfigError, to_user_error
from citeflow.utils.signals import handle_signals

OUTPUT_CLOSED = 141
"""As a shell tells SIGPIPE: nobody reads on, as behind `| head`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        args = _parser().parse_args(argv)
        with handle_signals():
            args.call(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # Python flushes once more as it ends
        return OUTPUT_CLOSED
    except Exception as error:
        told = to_user_error(error)
        print(told, file=sys.stderr, flush=True)
        return told.exit_code
    return 0


class _Parser(argparse.ArgumentParser):
    """Tells a wrong option as every other error is told."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"{self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="citeflow",
        description="Find the citations that are missing from a citation network.",
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"citeflow {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        run,
        experiments,
        tune,
        verbs,
        predict,
        settings,
        compile,
        submit,
        runs,
        cluster,
        doctor,
    ):
        module.add_to(commands)
    return parser


def _exit_codes() -> str:
    kinds: list[type[CiteflowError]] = CiteflowError.__subclasses__()
    meanings = {kind.exit_code: (kind.__doc__ or "").splitlines()[0] for kind in kinds}
    failed = "citeflow itself, or the system below it, failed."
    meanings |= {
        0: "It went well.",
        CiteflowError.exit_code: failed,
        130: "Ctrl-C.",
        OUTPUT_CLOSED: "Nobody reads on.",
    }
    return "\n".join(
        ["exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in sorted(meanings.items()))]
    )
