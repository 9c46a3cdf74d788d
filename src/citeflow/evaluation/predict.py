"""Predict the missing citations of papers, with reasons: of the graph, or of new ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from citeflow import files
from citeflow.errors import CiteflowError, NotFoundError
from citeflow.evaluation import trained_model
from citeflow.evaluation.answers import Answer, Wanted
from citeflow.evaluation.engine import Engine, answer_all, since_day
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.queries import PaperIndex, QueryPaper, QueryReader
from citeflow.graph.prepared import PreparedGraph
from citeflow.utils.logging import log


def predict(
    model: Path,
    queries: Sequence[QueryPaper],
    *,
    data_root: Path,
    wanted: Wanted | None = None,
) -> Iterator[Answer]:
    """Rank for each paper those that it most likely should cite and does not.

    Candidates are all papers of the graph that it does not cite and, where dates are known, that
    are no newer. All papers are embedded once for all queries. New papers do not see each other,
    and are not seen by the papers of the graph, so no answer depends on another query.

    Args:
        model: a TrainedModel.
        queries: papers of the graph, or new ones.
        data_root: where the PreparedGraph that it was trained on lies.
        wanted: length of the list, and what is in it.

    Returns:
        An answer for each query, in their order, each computed when it is taken. That of a query
        that cannot be answered has the error.

    Raises:
        NotFoundError: there is no such model or graph.
        ConfigError: `since` is no date, or papers have none.
    """
    trained = trained_model.load(model)
    graph = PreparedGraph.open(find_graph(data_root, str(trained.manifest.inputs["PreparedGraph"])))
    wanted = wanted or Wanted()
    since_day(graph, wanted.since)
    papers = PaperIndex(graph)
    errors = _errors(queries, QueryReader(graph, papers))
    if len(errors) == len(queries):  # nothing to embed for
        return (
            Answer(query=query, error=error) for query, error in zip(queries, errors, strict=True)
        )
    log("predict", "embedding", papers=graph.num_papers)
    engine = Engine(trained, graph, papers, embed_all(trained.model, graph))
    return answer_all(engine, queries, wanted)


def _errors(queries: Sequence[QueryPaper], reader: QueryReader) -> list[CiteflowError]:
    """Return the errors of queries that cannot be answered, up to the first that can."""
    errors = []
    for query in queries:
        try:
            reader.read(query)
        except CiteflowError as error:
            errors.append(error)
        else:
            break
    return errors


def find_graph(data_root: Path, sha256: str) -> Path:
    """Find a PreparedGraph by the digest of its content.

    Raises:
        NotFoundError: it is not in `data_root`.
    """
    for manifest in sorted((data_root / "prepared").glob(f"*/{files.MANIFEST}")):
        content = files.read_json(manifest)
        if isinstance(content, dict) and content.get("sha256") == sha256:
            return manifest.parent
    hint = "give the --data-root of the run, or run preprocess again"
    raise NotFoundError(
        "the graph that the model was trained on is not in", data_root / "prepared", hint=hint
    )
