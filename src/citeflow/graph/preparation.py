"""Make the PreparedGraph of a raw dataset: clean, split, order by locality, and write.

Legend: N papers, E citations, F features, P held-out citations, K candidates.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from pydantic import JsonValue

from citeflow import files
from citeflow.config import DataConfig
from citeflow.data.citation_graph import CitationGraph, HeldOut
from citeflow.data.datasets import read_raw
from citeflow.data.diagnosis import plural
from citeflow.data.features import release_pages
from citeflow.data.locks import exclusive
from citeflow.data.text import TextModel
from citeflow.errors import CorruptError, DataError
from citeflow.graph.candidates import Candidates, HardCandidates, choose_hard
from citeflow.graph.csr import (
    Csr,
    drop_self_and_duplicates,
    inverse_permutation,
    permute,
    rows_of,
    to_undirected,
    transpose,
)
from citeflow.graph.prepared import (
    KIND,
    TEXT_COMPONENTS,
    TEXT_WORDS,
    GraphFacts,
    map_array,
    map_csr,
    map_hard,
    map_held_out,
)
from citeflow.graph.remarks import describe_direction, describe_dropped
from citeflow.graph.reorder import order_by_locality
from citeflow.graph.similar import make_cells, similar_papers
from citeflow.graph.split import (
    Split,
    count_in_training,
    count_later,
    hold_out_at_random,
    hold_out_by_date,
)
from citeflow.report import MIN_TEST_CITATIONS, WARNING, StageCost, stage_costs
from citeflow.utils import records
from citeflow.utils.logging import log
from citeflow.utils.progress import log_progress
from citeflow.utils.system import memory_limit
from citeflow.utils.usage import StageMeter

FORMAT = 7
"""Goes up when the same input makes other files, be they those of a step, so that older ones are
not taken for the new."""

FACTS = "facts.json"
NO_CITATIONS = np.empty((2, 0), np.int32)

BLOCK_ROWS = 1 << 16
"""Rows that are taken from a map at once."""

CHUNK_SHARE = 1 / 4
"""Share of the memory for the features that are put in order at once."""


def prepare(raw: Path, *, data_root: Path, config: DataConfig) -> Path:
    """Make the PreparedGraph of a raw dataset, unless it is there already in one piece.

    Args:
        raw: a RawDataset.
        data_root: the shared folder; the result lies in its `prepared`.
        config: how to read and split it.

    Returns:
        The folder of the PreparedGraph, named by the digest of all that it depends on.

    Raises:
        DataError: the dataset is malformed or too small.
    """
    meter = StageMeter()
    manifest = files.read_manifest(raw, "RawDataset")
    key = {"raw": manifest.sha256, "data": config.model_dump(), "format": FORMAT}
    folder = data_root / "prepared" / files.sha256_of_json(key)[:16]
    if files.is_whole(folder, KIND):
        log("preprocess", "already there", path=folder)
        return folder
    steps = folder.with_name(f".{folder.name}.steps")
    with exclusive(steps / "preprocess.lock", stage="preprocess"):
        if files.is_whole(folder, KIND):
            log("preprocess", "made by another process", path=folder)
        else:
            files.delete_unfinished(steps)
            log("preprocess", "reading", path=raw)
            try:
                with log_progress("preprocess", "at work"):
                    # The graph is not held here: writing lets go of its parts one after the other.
                    write_prepared(
                        read_raw(raw, config),
                        folder,
                        config=config,
                        raw=manifest,
                        meter=meter,
                        steps=steps,
                    )
            except DataError:
                files.delete_directory(steps)  # no other attempt ends in another way
                raise
        files.delete_directory(steps)
    return folder


def write_prepared(
    graph: CitationGraph,
    folder: Path,
    *,
    config: DataConfig,
    raw: files.Manifest,
    meter: StageMeter,
    steps: Path | None = None,
) -> None:
    """Clean, split and order a graph, and write it as a PreparedGraph that appears at once.

    Args:
        graph: as it was read.
        folder: path of the PreparedGraph.
        config: how to split it.
        raw: manifest of the RawDataset.
        meter: measures what the stage takes, for the manifest.
        steps: where each step leaves its files, so that a process which is started again goes on
            behind the last that ended; None keeps nothing.

    Raises:
        DataError: it has one paper, no citation, or none that can be held out.
    """
    if len(graph.id_N) < 2:
        raise DataError("not enough papers", len(graph.id_N), hint="a citation takes two")
    with contextlib.ExitStack() as stack:
        if steps is None:
            steps = stack.enter_context(files.scratch_directory(folder.parent))
        split = steps / "split"
        cleaned = None if _is_done(split) else _clean(graph)
        # They are in `cleaned`, or split; a large graph has no room for them twice.
        graph = dataclasses.replace(graph, edge_2E=NO_CITATIONS)
        if cleaned is not None:
            with files.new_directory(split) as work:
                _save_split(work, graph, cleaned, config, dataset=str(raw.facts.get("dataset", "")))
            del cleaned
        neighbors = _step(steps / "neighbors", lambda work: _save_neighbors(work, split))
        hard = _step(
            steps / "hard", lambda work: _choose_hard(work, graph, split, neighbors, config)
        )
        order = _step(steps / "order", lambda work: _save_order(work, neighbors, config))
        papers = _step(
            steps / "papers", lambda work: _save_ordered(work, graph, split, neighbors, hard, order)
        )
        similar = _step(steps / "similar", lambda work: _save_similar(work, papers, config))
        facts = records.load(GraphFacts, files.read_json(split / FACTS), error=CorruptError)
        num_hard = len(map_array(hard, "hard_source"))
        with files.new_directory(folder) as work:
            for each in (papers, similar):
                files.link_files(each, work)
            stages = {**stage_costs(raw), "preprocess": StageCost(**meter.cost())}
            costs: dict[str, JsonValue] = {
                name: cost.model_dump(exclude_none=True) for name, cost in stages.items()
            }
            files.write_manifest(
                work,
                KIND,
                inputs={"RawDataset": raw.sha256},
                facts={
                    **facts.model_dump(mode="json"),
                    "num_hard": num_hard,
                    "stages": costs,
                },
            )
    log("preprocess", "done", path=folder)


def _is_done(step: Path) -> bool:
    """Return True if an earlier process has ended a step."""
    if step.is_dir():
        log("preprocess", "done before", step=step.name)
    return step.is_dir()


def _step(step: Path, save: Callable[[Path], None]) -> Path:
    """Have a step save its files, unless an earlier process has; return their folder."""
    if not _is_done(step):
        with files.new_directory(step) as work:
            save(work)
    return step


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cleaned:
    """Citations of which those are dropped that have no meaning."""

    citations: Csr
    num_self: int
    """Dropped citations of a paper by itself."""

    num_duplicates: int
    """Dropped repetitions."""

    remarks: list[str]


def _clean(graph: CitationGraph) -> _Cleaned:
    citations, num_self, num_duplicates = drop_self_and_duplicates(graph.edge_2E, len(graph.id_N))
    return _Cleaned(
        citations=citations,
        num_self=num_self,
        num_duplicates=num_duplicates,
        remarks=describe_dropped(graph, citations, num_self, num_duplicates),
    )


def _save_split(
    work: Path, graph: CitationGraph, cleaned: _Cleaned, config: DataConfig, *, dataset: str
) -> None:
    """Hold citations out, and save them, those left, and the facts."""
    num_papers = len(graph.id_N)
    citations = cleaned.citations
    log(
        "preprocess",
        "cleaned",
        papers=num_papers,
        citations=len(citations.col_E),
        self=cleaned.num_self,
        repeated=cleaned.num_duplicates,
    )
    if not len(citations.col_E):
        num_given = cleaned.num_self + cleaned.num_duplicates
        hint = f"{cleaned.num_self} of {num_given} were self-citations"
        raise DataError("no citations to learn from", dataset, hint=hint)
    if config.time_cut and graph.day_N is None:
        raise DataError("data.time_cut", "no dates", hint="leave it out, or give the papers dates")
    odd = describe_direction(graph, citations)
    references, valid, test, candidates = _split(graph, citations, config)
    del citations
    if candidates is not None and candidates.num_short:
        what = "paper" if graph.day_N is not None else "citation"
        odd.append(
            f"{plural(candidates.num_short, what)} not held out, as far fewer papers than usual "
            "are left to rank against"
        )
    if graph.split is None and len(test.source_P) < MIN_TEST_CITATIONS:
        odd.append(
            f"{WARNING}: the test has {plural(len(test.source_P), 'citation')}, "
            "too few for a figure that says anything"
        )
    for text in (*cleaned.remarks, *odd):
        log("preprocess", text)
    facts = GraphFacts(
        dataset=dataset,
        split=_split_kind(graph),
        num_papers=num_papers,
        num_citations=len(references.col_E) + len(valid.source_P) + len(test.source_P),
        num_training_citations=len(references.col_E),
        num_valid=len(valid.source_P),
        num_test=len(test.source_P),
        num_negatives=test.negative_PK.shape[1],
        time_cut=config.time_cut,
        num_similar=0 if graph.x_NF is None else config.num_similar,
        num_features=0 if graph.x_NF is None else graph.x_NF.shape[1],
        dates=graph.day_N is not None,
        later_citations=count_later(references, graph.day_N, graph.is_dated_N),
        held_out_in_training=count_in_training(references, valid, test),
        self_citations=cleaned.num_self,
        duplicates=cleaned.num_duplicates,
        unknown=graph.counts.get("unknown", 0),
        without_date=graph.counts.get("without_date", 0),
        fewest_candidates=candidates.fewest if candidates else None,
        median_candidates=candidates.median if candidates else None,
        most_candidates=candidates.most if candidates else None,
        short_sources=candidates.num_short if candidates else 0,
        remarks=(*graph.remarks, *cleaned.remarks, *odd),
    )
    log(
        "preprocess",
        "split",
        training=facts.num_training_citations,
        held_out=facts.num_valid,
        negatives=facts.num_negatives,
    )
    _save_csr(work, "references", references)
    for name, held_out in (("valid", valid), ("test", test)):
        files.save_array(work / f"{name}_source.npy", held_out.source_P)
        files.save_array(work / f"{name}_target.npy", held_out.target_P)
        files.save_array(work / f"{name}_negative.npy", held_out.negative_PK)
    files.write_json(work / FACTS, facts.model_dump(mode="json"))


def _save_neighbors(work: Path, split: Path) -> None:
    _save_csr(work, "neighbors", to_undirected(_open_csr(split, "references")))


def _choose_hard(
    work: Path, graph: CitationGraph, split: Path, neighbors: Path, config: DataConfig
) -> None:
    references = _open_csr(split, "references")
    linked = _open_csr(neighbors, "neighbors")
    held_out = tuple(map_held_out(split, name) for name in ("valid", "test"))
    hard = choose_hard(
        np.concatenate([each.source_P for each in held_out]),
        Candidates(
            linked if graph.day_N is None else references, held_out, graph.day_N, graph.is_dated_N
        ),
        references=references,
        neighbors=linked,
        x_NF=graph.x_NF,
        config=config,
    )
    files.save_array(work / "hard_source.npy", hard.source_S)
    files.save_array(work / "hard_rowptr.npy", hard.candidates.rowptr_N1)
    files.save_array(work / "hard_candidate.npy", hard.candidates.col_E)
    log("preprocess", "chose hard candidates", sources=len(hard.source_S))


def _save_order(work: Path, neighbors: Path, config: DataConfig) -> None:
    order_N = order_by_locality(_open_csr(neighbors, "neighbors"), seed=config.seed)
    files.save_array(work / "order.npy", order_N)
    log("preprocess", "ordered")


def _save_ordered(
    work: Path, graph: CitationGraph, split: Path, neighbors: Path, hard: Path, order: Path
) -> None:
    """Save all that is known, by the rows of the PreparedGraph."""
    order_N = np.asarray(map_array(order, "order"))
    _save_csr(work, "neighbors", permute(_open_csr(neighbors, "neighbors"), order_N))
    references = permute(_open_csr(split, "references"), order_N)
    _save_csr(work, "references", references)
    _save_csr(work, "citations", transpose(references))
    del references
    for name in ("valid", "test"):
        _save_held_out(work, name, map_held_out(split, name), order_N)
    _save_hard(work, map_hard(hard), order_N)
    _save_papers(work, graph, order_N)
    if graph.text_model is not None:
        _save_text_model(work, graph.text_model)


def _open_csr(folder: Path, name: str) -> Csr:
    """Map rows as plain arrays: np.memmap slows down small index operations."""
    csr = map_csr(folder, name)
    return Csr(np.asarray(csr.rowptr_N1), np.asarray(csr.col_E))


def _split_kind(graph: CitationGraph) -> Literal["own", "date", "random"]:
    if graph.split is not None:
        return "own"
    return "random" if graph.day_N is None else "date"


def _split(graph: CitationGraph, citations: Csr, config: DataConfig) -> Split:
    num_papers = len(graph.id_N)
    if graph.split is not None:
        _check_held_out("valid", graph.split.valid, num_papers)
        _check_held_out("test", graph.split.test, num_papers)
        return Split(citations, graph.split.valid, graph.split.test)
    if graph.day_N is None:
        return hold_out_at_random(
            citations,
            share=config.holdout,
            num_negatives=config.eval_negatives,
            seed=config.seed,
        )
    return hold_out_by_date(
        citations,
        graph.day_N,
        share=config.holdout,
        num_negatives=config.eval_negatives,
        seed=config.seed,
        is_dated_N=graph.is_dated_N,
    )


def _check_held_out(name: str, held_out: HeldOut, num_papers: int) -> None:
    shape = held_out.negative_PK.shape
    if not len(held_out.source_P) == len(held_out.target_P) == shape[0] or min(shape) < 1:
        raise DataError(f"{name} split is empty or its parts differ in length", shape)
    for array in (held_out.source_P, held_out.target_P, held_out.negative_PK):
        if array.min() < 0 or array.max() >= num_papers:
            raise DataError(
                f"{name} split names a paper that does not exist",
                array.min() if array.min() < 0 else array.max(),
                hint=f"rows are 0 to {num_papers - 1}",
            )


def _save_papers(work: Path, graph: CitationGraph, order_N: np.ndarray) -> None:
    columns = {"id": pa.array(graph.id_N[order_N])}
    if graph.title_N is not None:
        columns["title"] = pa.array(graph.title_N[order_N], type=pa.large_string())
    files.save_table(work / "papers.parquet", columns)
    if graph.x_NF is not None:
        blocks = _permute_features(graph.x_NF, order_N)
        files.save_blocks(work / "x.npy", blocks, graph.x_NF.shape, graph.x_NF.dtype)
    if graph.bm25_NV is not None:
        bm25_NV = graph.bm25_NV[order_N]
        files.save_array(work / "bm25_weight.npy", bm25_NV.data)
        files.save_array(work / "bm25_word.npy", bm25_NV.indices.astype(np.int32))
        files.save_array(work / "bm25_rowptr.npy", bm25_NV.indptr.astype(np.int64))
    if graph.day_N is not None:
        files.save_array(work / "day.npy", graph.day_N[order_N].astype(np.int32))
    if graph.is_dated_N is not None:
        files.save_array(work / "dated.npy", graph.is_dated_N[order_N])


def _save_text_model(work: Path, model: TextModel) -> None:
    files.save_table(work / TEXT_WORDS, {"word": pa.array(model.word_V), "idf": model.idf_V})
    if model.component_FV is not None:
        files.save_array(work / TEXT_COMPONENTS, model.component_FV)


def _permute_features(x_NF: np.ndarray, order_N: np.ndarray) -> Iterator[np.ndarray]:
    """Yield features in another order, chunk by chunk.

    The features may be a map of a file that is larger than the memory. So each chunk reads the map
    from its front to its end, in ascending rows, and not here and there.
    """
    chunk_rows = max(1, int(CHUNK_SHARE * memory_limit() / (x_NF.itemsize * x_NF.shape[1])))
    for row_C in np.array_split(order_N, range(chunk_rows, len(order_N), chunk_rows)):
        x_CF = np.empty((len(row_C), x_NF.shape[1]), x_NF.dtype)
        ascending = np.argsort(row_C)
        for index_B in np.array_split(ascending, range(BLOCK_ROWS, len(row_C), BLOCK_ROWS)):
            x_CF[index_B] = x_NF[row_C[index_B]]
            release_pages(x_NF)
        yield x_CF


def _save_similar(work: Path, papers: Path, config: DataConfig) -> None:
    """Save the similarity graph of the features that were saved, if any, and its cells."""
    if not config.num_similar or not (papers / "x.npy").exists():
        return
    x_NF = map_array(papers, "x")
    day_N = np.load(papers / "day.npy") if (papers / "day.npy").exists() else None
    with log_progress("preprocess", "putting papers into cells", of=len(x_NF)) as progress:
        cells = make_cells(x_NF, day_N, seed=config.seed, progress=progress)
    with log_progress("preprocess", "finding similar papers", of=len(x_NF)) as progress:
        similar = similar_papers(x_NF, day_N, config.num_similar, cells=cells, progress=progress)
    _save_csr(work, "similar", similar)
    if cells is not None:
        files.save_array(work / "cell_center.npy", cells.center_CF)
        _save_csr(work, "cell", cells.members)
    log("preprocess", "linked similar papers", pairs=len(similar.col_E) // 2)


def _save_csr(work: Path, name: str, csr: Csr) -> None:
    files.save_array(work / f"{name}_ptr.npy", csr.rowptr_N1)
    files.save_array(work / f"{name}_index.npy", csr.col_E)


def _save_held_out(work: Path, name: str, held_out: HeldOut, order_N: np.ndarray) -> None:
    new_row_N = inverse_permutation(order_N)
    files.save_array(work / f"{name}_source.npy", new_row_N[held_out.source_P])
    files.save_array(work / f"{name}_target.npy", new_row_N[held_out.target_P])
    shape = held_out.negative_PK.shape
    blocks = (
        new_row_N[held_out.negative_PK[first : first + BLOCK_ROWS]]
        for first in range(0, shape[0], BLOCK_ROWS)
    )
    files.save_blocks(work / f"{name}_negative.npy", blocks, shape, np.int32)


def _save_hard(work: Path, hard: HardCandidates, order_N: np.ndarray) -> None:
    new_row_N = inverse_permutation(order_N)
    source_S = new_row_N[hard.source_S]
    order_S = np.argsort(source_S)
    candidates = rows_of(hard.candidates, order_S)
    files.save_array(work / "hard_source.npy", source_S[order_S])
    files.save_array(work / "hard_rowptr.npy", candidates.rowptr_N1)
    files.save_array(work / "hard_candidate.npy", new_row_N[candidates.col_E])
