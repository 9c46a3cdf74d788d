"""`citeflow index` and `citeflow serve`: what a server answers from, and the server."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from citeflow import files
from citeflow.artifacts import SERVING_INDEX, TRAINED_MODEL
from citeflow.cli import options
from citeflow.cli.trained_model import find_model
from citeflow.errors import NotFoundError
from citeflow.tasks import task_of
from citeflow.utils.logging import emit

INSTALL = "pip install '.[train,serve]' in a checkout of citeflow"

REGISTRY = "models:/"
"""Begin of a SOURCE that names a model of MLflow's registry."""

WATCH_S = 2.0
"""Seconds between two looks at a folder that is watched."""

ALIAS_WATCH_S = 10.0
"""Seconds between two questions to MLflow which version an alias names."""


@click.command(cls=options.RecordCommand)
@click.argument("run")
@click.option(
    "--out",
    "-o",
    type=options.OutputFolder(),
    help="Folder of the index; by default `index` beside the model.",
)
@options.data_root
def index(run: str, out: Path | None, data_root: Path) -> None:
    """Write the folder that a server answers from.

    RUN is the --out folder of a run, a model, or the name of a run below the data root. The graph
    of a model of citations has to lie below the data root; the index needs neither of them.
    """
    model = find_model(run, data_root)
    options.require("torch", hint=INSTALL)
    folder = _write(model, out or _folder_of(model), data_root)
    manifest = files.read_manifest(folder, SERVING_INDEX)
    emit({"path": str(folder), "sha256": manifest.sha256, **manifest.facts})


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where the server listens, and what it takes on."""

    host: str
    port: int
    threads: int
    torch_threads: int
    max_waiting: int
    timeout: float


where = options.grouped(
    "where",
    Where,
    click.option(
        "--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for all of the network."
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=8080,
        show_default=True,
        help="0 takes any that is free.",
    ),
    click.option(
        "--threads",
        type=options.POSITIVE,
        default=1,
        show_default=True,
        metavar="N",
        help="Papers that are answered at a time; one thread more is for scans and batches.",
    ),
    click.option(
        "--torch-threads",
        type=options.POSITIVE,
        default=1,
        show_default=True,
        metavar="N",
        help="Threads that compute one answer; more make scans of all papers faster.",
    ),
    click.option(
        "--max-waiting",
        type=click.IntRange(min=0),
        default=2,
        show_default=True,
        metavar="N",
        help="Requests that wait for a thread; those beyond get 429.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="S",
        help="Seconds that a request may wait and be answered.",
    ),
)


@click.command(cls=options.RecordCommand)
@click.argument("source")
@where
@click.option("--watch", is_flag=True, help="Take up the index that replaces this one.")
@options.data_root
def serve(source: str, where: Where, watch: bool, data_root: Path) -> None:
    """Answer over HTTP which citations papers lack, or what pictures show.

    SOURCE is the folder of an index, or a run or a model, whose index is made if it is not there.
    With --watch it may be a link, and a path with a slash need not exist yet; of a model of
    MLflow's registry, such as models:/citeflow@champion, the alias is followed.
    """
    options.require("torch", "fastapi", "uvicorn", hint=INSTALL)
    from citeflow.serving import server
    from citeflow.serving.app import Limits
    from citeflow.serving.listening import Address
    from citeflow.serving.reload import Source

    if not source.startswith(REGISTRY):
        _find_source(source, data_root, watch=watch)  # refused before the server listens
    server.serve(
        Source(
            find=_finder(source, data_root, watch=watch),
            watch_s=_pause(source) if watch else None,
        ),
        Address(host=where.host, port=where.port),
        Limits(threads=where.threads, max_waiting=where.max_waiting, timeout_s=where.timeout),
        torch_threads=where.torch_threads,
    )


def _pause(source: str) -> float:
    return ALIAS_WATCH_S if source.startswith(REGISTRY) else WATCH_S


def _finder(source: str, data_root: Path, *, watch: bool) -> Callable[[], Path]:
    """Return what finds the index at each look; nothing is made or downloaded twice."""
    if not source.startswith(REGISTRY):
        return functools.cache(lambda: _find_index(source, data_root, watch=watch))
    from citeflow.reporting import registered_models

    reference = registered_models.Reference.parse(source)
    made: dict[str, Path] = {}

    def find() -> Path:
        version = registered_models.find(*reference)
        if version.sha256 not in made:
            model = registered_models.download(version, data_root / "models")
            made[version.sha256] = _write_beside(model, data_root)
        return made[version.sha256]

    return find


def _find_index(source: str, data_root: Path, *, watch: bool) -> Path:
    """Return the folder of an index; that of a run is made where it is not there.

    Raises:
        NotFoundError: it is neither an index nor a run.
    """
    folder, is_model = _find_source(source, data_root, watch=watch)
    return _write_beside(folder, data_root) if is_model else folder


def _find_source(source: str, data_root: Path, *, watch: bool) -> tuple[Path, bool]:
    """Return the folder of an index, or of a model, and whether it is one of a model.

    With `watch` that of an index may come later.

    Raises:
        NotFoundError: it is neither an index nor a run.
    """
    folder = Path(source).expanduser().absolute()
    if files.is_whole(folder, SERVING_INDEX):
        return folder, False
    try:
        return find_model(source, data_root), True
    except NotFoundError:
        if watch and _may_come(source, folder):
            return folder, False
        hint = "name a ServingIndex, the --out folder of a run, or a run below the --data-root"
        if watch and not folder.exists():
            hint += "; a path with a slash, such as ./index, may come later"
        raise NotFoundError("nothing to serve here", folder, hint=hint) from None


def _may_come(source: str, folder: Path) -> bool:
    """Tell a path where an index is going to be from a name that is wrong."""
    if folder.is_dir():
        return not files.names_in(folder)
    return not folder.exists() and ("/" in source or folder.is_symlink())


def _write_beside(model: Path, data_root: Path) -> Path:
    return _write(model, _folder_of(model), data_root)


def _write(model: Path, folder: Path, data_root: Path) -> Path:
    """Write an index; no stage, which handles signals: servers call it from a thread."""
    task = task_of(model, TRAINED_MODEL)
    return task.write_index(model, folder, find_data=lambda: _graph_of(model, data_root))


def _graph_of(model: Path, data_root: Path) -> Path:
    from citeflow.evaluation.predict import find_graph

    sha256 = files.read_manifest(model, TRAINED_MODEL).inputs["PreparedGraph"]
    return find_graph(data_root, str(sha256))


def _folder_of(model: Path) -> Path:
    return model.parent / "index"
