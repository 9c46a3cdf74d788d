"""The ServingIndex: a folder with all that answers need, mapped into memory when it is opened.

It has the layout of a PreparedGraph without what only training and evaluation read, so that it is
opened as one, and beside it the model, the embeddings of all papers, and their names. Neither the
run nor its graph is needed where it is served.

Legend: N papers, H hidden channels, P held-out citations.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pydantic import JsonValue

from citeflow import __version__, files
from citeflow.artifacts import SERVING_INDEX
from citeflow.errors import ConfigError, DataError
from citeflow.evaluation import trained_model
from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.engine import Engine
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.queries import QueryPaper
from citeflow.evaluation.trained_model import DETAILS, WEIGHTS
from citeflow.files import Manifest
from citeflow.graph.prepared import TEXT_COMPONENTS, TEXT_WORDS, PreparedGraph, map_array
from citeflow.serving.citation import papers
from citeflow.serving.citation.papers import StoredPapers
from citeflow.serving.served import Tensors, is_made_of
from citeflow.utils.logging import log

LAYOUT = 1
"""Number of the layout: an index of another one is made anew."""

INPUTS = ("paper", "references", "title", "abstract")
"""Names of the tensors that it takes, BYTES [B]: ids of papers of the graph, or what is known of
new ones; `references` are ids with commas between them."""

OUTPUTS = {"id": "BYTES", "probability": "FP32", "logit": "FP32"}
"""Names and types of the tensors that it answers with, [B, k]."""

ROWS = ("references", "citations", "neighbors", "similar", "cell")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingIndex:
    """An index that was opened, ready to answer."""

    path: Path
    manifest: Manifest
    engine: Engine
    papers: StoredPapers

    @property
    def graph(self) -> PreparedGraph:
        """The papers, their citations, features and dates."""
        return self.engine.graph

    @classmethod
    def open(cls, path: Path) -> "ServingIndex":
        """Verify an index, and map it into memory.

        Raises:
            NotFoundError: there is none.
            CorruptError: a file does not match its digest, or is not what `write` writes.
            ConfigError: another version of citeflow trained its model.
        """
        manifest = files.verify(path, SERVING_INDEX)
        graph = PreparedGraph.open(path, SERVING_INDEX)
        names = StoredPapers(path, are_numbers=manifest.facts.get("number_ids") is True)
        engine = Engine(
            trained_model.load_scorer(path),
            graph,
            names,
            torch.from_numpy(np.asarray(map_array(path, "embedding"))),
        )
        return cls(path=path, manifest=manifest, engine=engine, papers=names)

    @property
    def inputs(self) -> Tensors:
        """Papers, by id or by what is known of them."""
        return {name: ("BYTES", [-1]) for name in INPUTS}

    @property
    def outputs(self) -> Tensors:
        """Predictions of each paper."""
        return {name: (datatype, [-1, -1]) for name, datatype in OUTPUTS.items()}

    @property
    def size(self) -> dict[str, int]:
        """The number of papers."""
        return {"papers": self.graph.num_papers}

    def warm_up(self) -> None:
        """Answer a few queries, so that no user waits for what is computed once or read first."""
        references = self.graph.references
        row = int(np.argmax(np.diff(references.rowptr_N1)))
        cited = tuple(str(self.papers.ids[each]) for each in references.row(row)[:20])
        for query, exact in (
            (QueryPaper(paper=str(self.papers.ids[row])), False),
            (QueryPaper(paper=str(self.papers.ids[row])), True),
            (QueryPaper(references=cited), False),
        ):
            with contextlib.suppress(DataError, ConfigError):  # such as no older paper
                self.engine.answer(query, Wanted(exact=exact))


def write_index(model: Path, graph: Path, folder: Path) -> Path:
    """Make the ServingIndex of a model, unless it is there already in one piece.

    Args:
        model: a TrainedModel.
        graph: the PreparedGraph that it was trained on.
        folder: path of the index.

    Returns:
        `folder`.

    Raises:
        NotFoundError: there is no such model or graph.
        CorruptError: a file does not match its digest.
    """
    trained = trained_model.load(model)
    prepared = PreparedGraph.open(graph)
    inputs: dict[str, JsonValue] = {
        "TrainedModel": trained.manifest.sha256,
        "PreparedGraph": prepared.manifest.sha256,
        "layout": LAYOUT,
    }
    if is_made_of(folder, inputs):
        log("index", "is there already", path=folder)
        return folder
    log("index", "embedding", papers=prepared.num_papers)
    embedding_NH = embed_all(trained.model, prepared)
    log("index", "writing", path=folder)
    with files.new_directory(folder) as work:
        files.save_array(work / "embedding.npy", embedding_NH.numpy())
        del embedding_NH  # of a large graph it lies on the disk, where the rest needs the room
        ids = prepared.column("id")
        assert ids is not None
        papers.write(work, ids, prepared.column("title"), prepared.citations.degree_N)
        _copy_graph(prepared, work)
        for name in (WEIGHTS, DETAILS):
            files.copy_file(model / name, work / name)
        facts = {
            **prepared.facts.model_dump(mode="json", exclude_none=True),
            "number_ids": pa.types.is_integer(ids.type),
            "valid_mrr": trained.details.valid_mrr,
            "citeflow": __version__,
        }
        files.write_manifest(work, SERVING_INDEX, inputs=inputs, facts=facts)
    return folder


def _copy_graph(graph: PreparedGraph, work: Path) -> None:
    """Copy the files of a graph that answers need."""
    names = ["day.npy", "dated.npy", "x.npy", "cell_center.npy", TEXT_WORDS, TEXT_COMPONENTS]
    names += [f"{name}_{part}.npy" for name in ROWS for part in ("ptr", "index")]
    names += [f"{part}_{end}.npy" for part in ("valid", "test") for end in ("source", "target")]
    for name in names:
        if name in graph.manifest.files:
            files.copy_file(graph.path / name, work / name)
    # Those that nothing is ranked against, so that the folder opens as a graph.
    for part, held_out in (("valid", graph.valid), ("test", graph.test)):
        shape = (len(held_out.source_P), 0)
        files.save_array(work / f"{part}_negative.npy", np.empty(shape, np.int32))
    files.save_array(work / "hard_source.npy", np.empty(0, np.int32))
    files.save_array(work / "hard_rowptr.npy", np.zeros(1, np.int64))
    files.save_array(work / "hard_candidate.npy", np.empty(0, np.int32))
