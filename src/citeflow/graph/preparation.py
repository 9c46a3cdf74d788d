"""Make the PreparedGraph of a raw dataset: clean, split, order by locality, and write.

Legend: N papers, E citations, F features, P held-out citations, K candidates.
"""

import dataclasses
from collections.abc import Iterator
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
from citeflow.data.diagnosis import plural, quote
from citeflow.data.features import release_pages
from citeflow.data.text import TextModel
from citeflow.errors import DataError
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
from citeflow.graph.prepared import KIND, TEXT_COMPONENTS, TEXT_WORDS, GraphFacts
from citeflow.graph.reorder import order_by_locality
from citeflow.graph.similar import make_cells, similar_papers
from citeflow.graph.split import (
    Split,
    count_in_training,
    count_later,
    hold_out_at_random,
    hold_out_by_date,
    share_both_ways,
)
from citeflow.report import MIN_TEST_CITATIONS, WARNING, StageCost, stage_costs
from citeflow.utils.large_arrays import count_values
from citeflow.utils.logging import log
from citeflow.utils.progress import log_progress
from citeflow.utils.system import memory_limit
from citeflow.utils.usage import StageMeter

FORMAT = 6
"""Goes up when the same input makes other files, so that older ones are not taken for the new."""

BLOCK_ROWS = 1 << 16
"""Rows that are taken from a map at once."""

SWAPPED = 0.9
"""Share of citations of later papers from which on they are taken for swapped."""

MANY_BOTH = 0.2
"""Share of citations in both directions that a citation network does not have."""

NUM_SHOWN = 3
"""Citations that are shown of those dropped."""

CHUNK_SHARE = 1 / 8
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
    log("preprocess", "reading", path=raw)
    with log_progress("preprocess", "at work"):
        # The graph is not held here: writing lets go of its parts one after the other.
        write_prepared(read_raw(raw, config), folder, config=config, raw=manifest, meter=meter)
    return folder


def write_prepared(
    graph: CitationGraph,
    folder: Path,
    *,
    config: DataConfig,
    raw: files.Manifest,
    meter: StageMeter,
) -> None:
    """Clean, split and order a graph, and write it as a PreparedGraph that appears at once.

    Args:
        graph: as it was read.
        folder: path of the PreparedGraph.
        config: how to split it.
        raw: manifest of the RawDataset.
        meter: measures what the stage takes, for the manifest.

    Raises:
        DataError: it has one paper, no citation, or none that can be held out.
    """
    num_papers = len(graph.id_N)
    if num_papers < 2:
        raise DataError("not enough papers", num_papers, hint="a citation takes two")
    dataset = str(raw.facts.get("dataset", ""))
    num_given = graph.edge_2E.shape[1]
    citations, num_self, num_duplicates = drop_self_and_duplicates(graph.edge_2E, num_papers)
    dropped = _describe_dropped(graph, citations, num_self, num_duplicates)
    # They are in `citations` from here on; a large graph has no room for both.
    graph = dataclasses.replace(graph, edge_2E=np.empty((2, 0), np.int32))
    log(
        "preprocess",
        "cleaned",
        papers=num_papers,
        citations=len(citations.col_E),
        self=num_self,
        repeated=num_duplicates,
    )
    if not len(citations.col_E):
        hint = f"{num_self} of {num_given} were self-citations"
        raise DataError("no citations to learn from", dataset, hint=hint)
    if config.time_cut and graph.day_N is None:
        raise DataError("data.time_cut", "no dates", hint="leave it out, or give the papers dates")
    odd = _describe_direction(graph, citations)
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
    for text in (*dropped, *odd):
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
        self_citations=num_self,
        duplicates=num_duplicates,
        unknown=graph.counts.get("unknown", 0),
        without_date=graph.counts.get("without_date", 0),
        fewest_candidates=candidates.fewest if candidates else None,
        median_candidates=candidates.median if candidates else None,
        most_candidates=candidates.most if candidates else None,
        short_sources=candidates.num_short if candidates else 0,
        remarks=(*graph.remarks, *dropped, *odd),
    )
    log(
        "preprocess",
        "split",
        training=facts.num_training_citations,
        held_out=facts.num_valid,
        negatives=facts.num_negatives,
    )
    neighbors = to_undirected(references)
    linked = neighbors if graph.day_N is None else references
    hard = choose_hard(
        np.concatenate([valid.source_P, test.source_P]),
        Candidates(linked, (valid, test), graph.day_N, graph.is_dated_N),
        references=references,
        neighbors=neighbors,
        x_NF=graph.x_NF,
        config=config,
    )
    del linked
    facts = facts.model_copy(update={"num_hard": len(hard.source_S)})
    log("preprocess", "chose hard candidates", sources=len(hard.source_S))
    order_N = order_by_locality(neighbors, seed=config.seed)
    log("preprocess", "ordered")
    with files.new_directory(folder) as work:
        _save_csrs(work, references, neighbors, order_N)
        del references, neighbors
        _save_held_out(work, "valid", valid, order_N)
        _save_held_out(work, "test", test, order_N)
        del valid, test
        _save_hard(work, hard, order_N)
        del hard
        _save_papers(work, graph, order_N)
        _save_similar(work, config)
        if graph.text_model is not None:
            _save_text_model(work, graph.text_model)
        stages = {**stage_costs(raw), "preprocess": StageCost(**meter.cost())}
        costs: dict[str, JsonValue] = {
            name: cost.model_dump(exclude_none=True) for name, cost in stages.items()
        }
        files.write_manifest(
            work,
            KIND,
            inputs={"RawDataset": raw.sha256},
            facts={**facts.model_dump(mode="json"), "stages": costs},
        )
    log("preprocess", "done", path=folder)


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


def _describe_direction(graph: CitationGraph, citations: Csr) -> list[str]:
    """Say if citations seem to run the wrong way, or both ways.

    Raises:
        DataError: nearly all of them go to later papers.
    """
    num_edges = len(citations.col_E)
    found = []
    share_both = share_both_ways(citations) if graph.split is None else 0
    if share_both > MANY_BOTH:
        found.append(
            f"{WARNING}: {share_both:.0%} of the citations are listed in both directions; keep the "
            "one from citing to cited paper"
        )
    num_later = count_later(citations, graph.day_N, graph.is_dated_N)
    swapped = f"{num_later:,} of {num_edges:,} citations go to a later paper"
    if graph.split is None and num_later > SWAPPED * num_edges:
        hint = "are citing and cited swapped? exchange the names of the columns"
        raise DataError("no test candidates", swapped, hint=hint)
    if 2 * num_later > num_edges and not found:
        found.append(f"{WARNING}: {swapped}: are citing and cited swapped?")
    return found


def _describe_dropped(
    graph: CitationGraph, citations: Csr, num_self: int, num_duplicates: int
) -> list[str]:
    """Say which citations are dropped that have no meaning, with the first ones of each kind."""
    source_E, target_E = graph.edge_2E
    is_self_E = source_E == target_E
    said = []
    if num_self:
        row_S = source_E[np.flatnonzero(is_self_E)[:NUM_SHOWN]]
        shown = ", ".join(quote(each) for each in graph.id_N[row_S].tolist())
        said.append(f"{plural(num_self, 'self-citation')} dropped, such as of {shown}")
    if num_duplicates:
        num_given_N = count_values(source_E, citations.num_rows)
        num_given_N -= count_values(source_E[is_self_E], citations.num_rows)
        repeating_S = np.flatnonzero(num_given_N > citations.degree_N)[:NUM_SHOWN]
        is_theirs_E = np.isin(source_E, repeating_S) & ~is_self_E
        pairs, counts = np.unique(graph.edge_2E[:, is_theirs_E], axis=1, return_counts=True)
        shown = ", ".join(
            f"{quote(graph.id_N[source])} to {quote(graph.id_N[target])}"
            for source, target in pairs[:, counts > 1][:, :NUM_SHOWN].T.tolist()
        )
        said.append(f"{plural(num_duplicates, 'repeated citation')} dropped, such as {shown}")
    return said


def _save_papers(work: Path, graph: CitationGraph, order_N: np.ndarray) -> None:
    columns = {"id": pa.array(graph.id_N[order_N])}
    if graph.title_N is not None:
        columns["title"] = pa.array(graph.title_N[order_N], type=pa.large_string())
    files.save_table(work / "papers.parquet", columns)
    if graph.x_NF is not None:
        blocks = _permute_features(graph.x_NF, order_N)
        files.save_blocks(work / "x.npy", blocks, graph.x_NF.shape, np.float32)
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
    chunk_rows = max(1, int(CHUNK_SHARE * memory_limit() / (4 * x_NF.shape[1])))
    for row_C in np.array_split(order_N, range(chunk_rows, len(order_N), chunk_rows)):
        x_CF = np.empty((len(row_C), x_NF.shape[1]), np.float32)
        ascending = np.argsort(row_C)
        for index_B in np.array_split(ascending, range(BLOCK_ROWS, len(row_C), BLOCK_ROWS)):
            x_CF[index_B] = x_NF[row_C[index_B]]
            release_pages(x_NF)
        yield x_CF


def _save_similar(work: Path, config: DataConfig) -> None:
    """Save the similarity graph of the features that were saved, if there are any."""
    if not config.num_similar or not (work / "x.npy").exists():
        return
    x_NF = np.load(work / "x.npy", mmap_mode="r")
    day_N = np.load(work / "day.npy") if (work / "day.npy").exists() else None
    with log_progress("preprocess", "putting papers into cells", of=len(x_NF)) as progress:
        cells = make_cells(x_NF, day_N, seed=config.seed, progress=progress)
    with log_progress("preprocess", "finding similar papers", of=len(x_NF)) as progress:
        similar = similar_papers(x_NF, day_N, config.num_similar, cells=cells, progress=progress)
    _save_csr(work, "similar", similar)
    log("preprocess", "linked similar papers", pairs=len(similar.col_E) // 2)


def _save_csrs(work: Path, references: Csr, neighbors: Csr, order_N: np.ndarray) -> None:
    _save_csr(work, "neighbors", permute(neighbors, order_N))
    references = permute(references, order_N)
    _save_csr(work, "references", references)
    _save_csr(work, "citations", transpose(references))


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
