"""`citeflow predict`: the citations that papers most likely lack, with reasons."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from citeflow.cli import options
from citeflow.cli.trained_model import find_citation_model
from citeflow.errors import ConfigError, DataError
from citeflow.utils import records
from citeflow.utils.logging import emit, log
from citeflow.utils.progress import log_progress

if TYPE_CHECKING:
    from citeflow.evaluation.answers import Answer, Wanted
    from citeflow.evaluation.queries import QueryPaper


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The paper that is asked for, or a file of many."""

    paper: tuple[str, ...]
    text: str | None
    title: str | None
    abstract: str | None
    references: str | None
    date: str | None
    features: Path | None
    batch: str | None


asked = options.grouped(
    "asked",
    Asked,
    click.option(
        "--paper",
        multiple=True,
        metavar="ID",
        help="A paper of the graph; several are taken as the references of one new paper.",
    ),
    click.option(
        "--text",
        metavar="FILE",
        help="A new paper: its title on the first line, its abstract below; - is stdin.",
    ),
    click.option("--title", metavar="TEXT", help="Of a new paper, in place of a file."),
    click.option("--abstract", metavar="TEXT", help="Of a new paper, beside --title."),
    click.option(
        "--references",
        metavar="ID,ID",
        help="Papers of the graph that a new one cites; or @FILE with one per line.",
    ),
    click.option(
        "--date", metavar="DATE", help="Of a new paper; by default that of the graph's newest."
    ),
    click.option(
        "--features",
        type=options.FILE,
        metavar="FILE.npy",
        help="Of a new paper, where the dataset's are not made of text.",
    ),
    click.option(
        "--batch",
        metavar="FILE",
        help="Many papers, a JSON object per line (paper, or title, abstract, references, date, "
        "features; id); prints one per line. - is stdin.",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """Which papers are listed."""

    since: str
    exclude_cited: bool
    k: int


listed = options.grouped(
    "listed",
    Listed,
    click.option("--since", default="", metavar="YEAR", help="List only papers from then on."),
    click.option(
        "--exclude-cited/--include-cited",
        default=True,
        help="Leave out what the paper cites already (the default), or rank it too.",
    ),
    click.option(
        "-k", type=options.POSITIVE, default=10, show_default=True, metavar="K", help="How many."
    ),
)


@click.command(cls=options.RecordCommand)
@click.argument("run")
@asked
@listed
@click.option("--json", "output", flag_value="json", help="One JSON object per line.")
@click.option("--csv", "output", flag_value="csv", help="A table with a header.")
@click.option("--bibtex", "output", flag_value="bibtex", help="Entries for a reference manager.")
@click.option("--table", "output", flag_value="table", help="Text, the default on a terminal.")
@options.data_root
def predict(
    run: str,
    asked: Asked,
    listed: Listed,
    output: str | None,
    data_root: Path,
) -> None:
    """List the papers that a paper should cite and does not, and why.

    RUN is the --out folder of a run, a model, the name of a run below the data root, or a model of
    MLflow's registry such as models:/citeflow@champion. The paper is one of the graph (--paper), or
    a new one, of which any of --text, --references and --features is enough.
    """
    model = find_citation_model(run, data_root)
    options.require("torch")
    from citeflow.evaluation.answers import Wanted

    wanted = Wanted(**asdict(listed))
    if asked.batch is not None:
        _predict_batch(model, asked, wanted, output, data_root)
        return
    from citeflow.evaluation import predict as prediction

    query = query_of(asked)
    answer = next(prediction.predict(model, [query], data_root=data_root, wanted=wanted))
    if answer.error is not None:
        raise answer.error
    output = output or ("table" if sys.stdout.isatty() else "json")
    if output != "table":  # a table has them itself
        for remark in answer.remarks:
            log("predict", f"note: {remark}")
    print(_render(output)(answer), end="", flush=True)


def _predict_batch(
    model: Path, asked: Asked, wanted: "Wanted", output: str | None, data_root: Path
) -> None:
    """Print a JSON object for each line of a file, in their order, as soon as it is known."""
    from citeflow.cli import query_files
    from citeflow.evaluation import predict as prediction
    from citeflow.reporting import predictions

    assert asked.batch is not None
    others = (asked.paper, asked.text, asked.title, asked.abstract, asked.references)
    if any(others) or asked.date or asked.features:
        hint = "its lines say what is known of each paper"
        raise ConfigError("either one paper or --batch", asked.batch, hint=hint)
    if output not in (None, "json"):
        raise ConfigError("--batch prints JSON lines, not", output, hint="leave the option out")
    lines = query_files.read_batch(asked.batch)
    queries = [query for _, query in lines]
    answers = prediction.predict(model, queries, data_root=data_root, wanted=wanted)
    num_errors = 0
    with log_progress("predict", "answered", of=len(lines)) as progress:
        for (number, _), answer in zip(lines, answers, strict=True):
            emit({"line": number, **predictions.to_json(answer)})
            num_errors += answer.error is not None
            progress.done += 1
    log("predict", "done", papers=len(lines), errors=num_errors)


def query_of(asked: Asked) -> "QueryPaper":
    """Put what the options say of one paper into a query.

    Raises:
        ConfigError: they say nothing, or contradict each other.
        NotFoundError, DataError: a file is missing, or holds something else.
    """
    from citeflow.cli import query_files
    from citeflow.evaluation.queries import QueryPaper

    about_new = (asked.text, asked.title, asked.abstract, asked.references, asked.features)
    is_new = any(value is not None for value in about_new)
    if not asked.paper and not is_new:
        hint = "--paper ID, or of a new paper --text FILE or --references ID,ID"
        raise ConfigError("no paper is given", hint=hint)
    if asked.paper and is_new:
        hint = "several --paper, or all of them in --references, are what a new paper cites"
        raise ConfigError("either --paper or a new paper", asked.paper[0], hint=hint)
    if len(asked.paper) == 1:
        if asked.date:
            hint = "a paper of the graph has its own"
            raise ConfigError("--date is of a new paper", asked.date, hint=hint)
        return QueryPaper(paper=asked.paper[0])
    if asked.text is not None and (asked.title is not None or asked.abstract is not None):
        raise ConfigError("either --text or --title and --abstract", asked.text)
    title, abstract = (asked.title or "").strip(), (asked.abstract or "").strip()
    if asked.text is not None:
        title, abstract = query_files.read_text(asked.text)
    elif (asked.title is not None or asked.abstract is not None) and not (title or abstract):
        raise ConfigError("the text is empty", "--title", hint=query_files.TEXT_HINT)
    references = query_files.read_ids(asked.references) if asked.references is not None else ()
    values = {
        "title": title,
        "abstract": abstract,
        "references": asked.paper or references,
        "date": asked.date or "",
        "features": query_files.read_features(asked.features) if asked.features else None,
    }
    return records.load(QueryPaper, values, name="paper", error=DataError)


def _render(output: str) -> "Callable[[Answer], str]":
    import json

    from citeflow.reporting import predictions

    return {
        "json": lambda answer: f"{json.dumps(predictions.to_json(answer))}\n",
        "csv": predictions.to_csv,
        "bibtex": predictions.to_bibtex,
        "table": predictions.to_table,
    }[output]
