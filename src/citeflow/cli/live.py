"""`--open`: a run in the browser, while it runs or afterwards."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from citeflow.cli import options
from citeflow.config import TaskConfig
from citeflow.paths import RunPaths
from citeflow.utils.logging import redact_url
from citeflow.utils.progress import LINE_EVERY_VARIABLE

PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "tensorboard")
INSTALL = "pip install '.[train,kfp,platform]' in a checkout of citeflow"

option = click.option(
    "--open", "with_page", is_flag=True, help="Show the run in the browser; needs no log-in."
)


def require() -> None:
    """Check before any work that a page can be served.

    Raises:
        MissingPackageError: a package for it is not installed.
    """
    options.require(*PACKAGES, hint=INSTALL)


@contextlib.contextmanager
def opened(
    run: RunPaths, settings: TaskConfig, *, dataset: str, workers: int, published: Path
) -> Iterator[Callable[[], None]]:
    """Have a page for the run that the block runs.

    Args:
        run: its paths.
        settings: all of its settings.
        dataset: as it was given.
        workers: number of training processes.
        published: folder of its report.

    Yields:
        What opens the page.
    """
    from citeflow.platform.backends.local import LINE_EVERY_S
    from citeflow.platform.live.shown import Shown, changes
    from citeflow.platform.live.view import View

    shown = Shown(
        data_root=run.data_root,
        name=run.name,
        task=settings.task,
        dataset=redact_url(dataset),
        workers=workers,
        settings=changes(settings),
        published=published,
        started=time.time(),
    )
    is_set = LINE_EVERY_VARIABLE in os.environ
    os.environ.setdefault(LINE_EVERY_VARIABLE, str(LINE_EVERY_S))
    try:
        with View(shown) as view:
            yield view.start
    finally:
        if not is_set:
            os.environ.pop(LINE_EVERY_VARIABLE)


@contextlib.contextmanager
def not_opened() -> Iterator[Callable[[], None]]:
    """Have no page."""
    yield lambda: None


def show(run: RunPaths) -> None:
    """Serve the page of a run until Ctrl-C."""
    from citeflow.platform.live.shown import of_records
    from citeflow.platform.live.view import View

    with View(of_records(run), grace_s=0) as view:
        view.start()
        view.wait()
