"""`citeflow inspect`: what data is, what of it would be read, what looks wrong, what is held out.

Nothing here decides anything: the facts come from the importers, the reader of the citation folder
and the split themselves, and each warning says what to look at.

Legend: N papers, E citations, P sources.
"""

import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow import files
from citeflow.config import DataConfig
from citeflow.data import citation_folder, ogb
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.dates import find_time_columns
from citeflow.data.diagnosis import and_more, quote
from citeflow.data.importers import registry
from citeflow.data.importers.provenance import Provenance
from citeflow.data.importers.source import open_source
from citeflow.data.importers.unpacked import unpacked
from citeflow.data.tables import (
    TableFile,
    as_text,
    is_text,
    open_table,
    read_all,
    read_batches,
)
from citeflow.errors import CiteflowError, NotFoundError
from citeflow.graph.csr import Csr, drop_self_and_duplicates
from citeflow.graph.split import (
    count_later,
    hold_out_at_random,
    hold_out_by_date,
    share_both_ways,
)

FEW_SOURCES = 30
PLACEHOLDERS = ("9999", "1970-01-01", "1900-01-01", "0001", "1000", "2099")
"""Dates and years that programs write where they know none."""
PLACEHOLDER_SHARE = 0.005
HUB_SHARE = 0.05
HUB_LEAST = 50
BOTH_SHARE = 0.05
MAX_IDS = 200_000
"""Ids that are looked at for other spellings."""
SHOWN = 3
FLOAT_ID = r"^-?\d+\.0+$"


@dataclass(slots=True)
class Inspection:
    """The facts, in the order in which they are shown."""

    source: str
    format: str = ""
    because: str = ""
    papers: int = 0
    citations: int = 0
    unknown: int = 0
    """Citations of papers that are not in the table."""
    self_citations: int = 0
    repeated: int = 0
    dates: dict[str, object] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    split: dict[str, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    """What the reader took, and what it left out."""
    warnings: list[str] = field(default_factory=list)
    is_readable: bool = True
    next: str = ""
    """The command that trains on it, if it can be read."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return asdict(self)


def inspect_source(source: str, scratch: Path, config: DataConfig) -> Inspection:
    """Look at a file, a folder, an archive or a URL.

    Args:
        source: what `--dataset` takes, without the names of datasets.
        scratch: an empty folder for what has to be unpacked or imported to be read.
        config: how it would be read and split.

    Raises:
        NotFoundError, DataError: there is nothing, or nothing that citeflow knows.
    """
    result = Inspection(source=source)
    provenance = None
    with unpacked(source, scratch) as path:
        found = registry.recognize(path)
        if found is None:
            folder = registry.native_folder(open_source(path)) or _missing(path)
            result.format = "citation folder"
            result.because = (
                f"it holds {', '.join(sorted(each.name for each in folder.iterdir()))[:200]}"
            )
        else:
            folder = scratch / "imported"
            result.format = found.importer.title
            result.because = found.evidence.because
            with files.new_directory(folder) as work:
                imported = found.write(work)
            result.ignored = dict(imported.ignored)
            result.dropped = imported.dropped
            result.warnings += imported.remarks
            provenance = Provenance(folder=folder, source=source, columns=imported.names)
        _inspect_folder(folder, result, config)
        if provenance:
            result.remarks, result.warnings = (
                [provenance.rewrite(text, with_lines=True) for text in texts]
                for texts in (result.remarks, result.warnings)
            )
    if result.is_readable:
        options = " --set data.unknown=drop" if result.unknown else ""
        result.next = f"citeflow run --dataset {shlex.quote(source)}{options}"
    return result


def _missing(path: Path) -> Path:
    if path.is_file():
        raise registry.unknown(path)
    citation_folder.find_files(path)  # says what is missing
    return path


def _inspect_folder(folder: Path, result: Inspection, config: DataConfig) -> None:
    try:
        ogb.find_files(folder)
    except NotFoundError:
        graph = _inspect_tables(folder, result, config)
    else:
        result.format = "OGB's raw layout"
        graph = ogb.read_ogb(folder)
    if graph is None:
        return
    result.features = list(graph.features)
    result.ignored |= {name: why for why, names in graph.unused.items() for name in names}
    result.remarks = list(graph.remarks)
    result.papers = len(graph.id_N)
    result.citations = graph.edge_2E.shape[1]
    result.unknown = graph.counts.get("unknown", 0)
    citations, result.self_citations, result.repeated = drop_self_and_duplicates(
        graph.edge_2E, len(graph.id_N)
    )
    if graph.day_N is not None:
        result.dates |= {"first": _day(graph.day_N.min()), "last": _day(graph.day_N.max())}
    result.warnings += [*_direction_warnings(citations, graph), *_hub_warnings(citations, graph)]
    if graph.split is not None:
        result.split = {"kind": "own", "sources": len(graph.split.test.source_P)}
    elif len(citations.col_E):
        _inspect_split(citations, graph, result, config)


def _inspect_tables(folder: Path, result: Inspection, config: DataConfig) -> CitationGraph | None:
    papers = open_table(folder, "papers", ["id"])
    citations = open_table(folder, "citations", ["citing", "cited"])
    data = read_all(papers)
    columns = dict(zip(data.column_names, data.columns, strict=True))
    result.papers = data.num_rows
    result.text = [name for name in ("title", "abstract") if name in columns]
    result.warnings += [*_date_warnings(columns, result), *_id_warnings(papers, columns, citations)]
    try:
        config = config.model_copy(update={"unknown": "drop"})
        return citation_folder.read_folder(folder, config, with_text=False)
    except CiteflowError as error:
        hint = f" ({error.hint})" if error.hint else ""
        result.warnings.insert(0, f"cannot be read: {error.what}: {error.value}{hint}")
        result.citations = sum(len(batch) for batch in read_batches(citations, ["citing"]))
        result.is_readable = False
    return None


def _day(day: int) -> str:
    return str(np.datetime64(int(day), "D"))


def _date_warnings(columns: dict[str, pa.ChunkedArray], result: Inspection) -> Iterator[str]:
    name = next(iter(find_time_columns(columns)), None)
    if name is None:
        return
    column = columns[name]
    text_N = as_text(column) if is_text(column.type) else column.cast(pa.string())
    num_missing = pc.sum(pc.equal(pc.coalesce(text_N, ""), "")).as_py() or 0
    result.dates = {"column": name, "missing": num_missing}
    if num_missing:
        yield f"{num_missing:,} of {len(text_N):,} papers have no {name}; all need one, or none"
    counts = {
        item["values"].removesuffix(".0")[:10]: item["counts"]
        for item in pc.value_counts(pc.coalesce(text_N, "")).to_pylist()
    }
    for value in PLACEHOLDERS:
        count = sum(
            each
            for text, each in counts.items()
            if text == value or (len(value) == 4 and text.startswith(f"{value}-"))
        )
        if count >= max(2, PLACEHOLDER_SHARE * len(text_N)):
            yield f"{count:,} papers have the {name} {value}: a placeholder for an unknown one?"
    this_year = str(date.today().year + 1)
    future = {
        text: each for text, each in counts.items() if this_year < text[:4] != "9999" and text
    }
    if future:
        yield f"{sum(future.values()):,} papers are of the future, such as {max(future)}"


def _id_warnings(
    papers: TableFile, columns: dict[str, pa.ChunkedArray], citations: TableFile
) -> Iterator[str]:
    ids = columns["id"].cast(pa.string()).combine_chunks()
    known = pc.utf8_trim_whitespace(pc.coalesce(ids, ""))
    if pa.types.is_floating(columns["id"].type) or _matches(known, FLOAT_ID):
        first = quote(columns["id"][0].as_py())
        yield f"ids of papers look like decimal numbers, such as {first}"
    repeated = len(known) - pc.count_distinct(known).as_py()
    if repeated:
        yield f"{repeated:,} papers have an id that another has"
    folded = _folded(known)
    if (count := pc.count_distinct(known).as_py() - pc.count_distinct(folded).as_py()) > 0:
        yield f"{count:,} ids of papers differ from others in case, blanks or Unicode form only"
    unknown = _unknown_ids(citations, known)
    if not len(unknown):
        return
    decimals = unknown.filter(pc.match_substring_regex(unknown, FLOAT_ID))
    if len(decimals):
        first = quote(decimals[0].as_py())
        yield f"{len(decimals):,} ids in citations look like decimals, such as {first}"
    is_alike = pc.is_in(_folded(unknown), value_set=folded)
    if count := pc.sum(is_alike).as_py() or 0:
        first = quote(unknown.filter(is_alike)[0].as_py())
        yield (
            f"{count:,} ids in citations are no paper's, and differ from one in upper case, blanks "
            f"or Unicode form only, such as {first}"
        )


def _matches(column: pa.Array, pattern: str) -> int:
    count: int = pc.sum(pc.match_substring_regex(column, pattern)).as_py() or 0
    return count


def _folded(ids: pa.Array) -> pa.Array:
    """Ids without what people do not see: case, blanks, the form of accents, `.0`."""
    lower = pc.replace_substring_regex(pc.utf8_lower(pc.utf8_trim_whitespace(ids)), r"\.0+$", "")
    if pc.all(pc.string_is_ascii(lower)).as_py():
        return lower
    return pa.array([unicodedata.normalize("NFC", each).casefold() for each in lower.to_pylist()])


def _unknown_ids(citations: TableFile, known: pa.Array) -> pa.Array:
    found = pa.array([], pa.string())
    for batch in read_batches(citations, ["citing", "cited"]):
        for column in batch.columns:
            text = pc.utf8_trim_whitespace(pc.coalesce(column.cast(pa.string()), ""))
            new = text.filter(pc.invert(pc.is_in(text, value_set=known)))
            found = pc.unique(pa.chunked_array([found, new]))
            if len(found) > MAX_IDS:
                return found.slice(0, MAX_IDS)
    return found


def _direction_warnings(citations: Csr, graph: CitationGraph) -> Iterator[str]:
    num_edges = len(citations.col_E)
    if not num_edges:
        return
    share_both = share_both_ways(citations)
    if share_both > BOTH_SHARE:
        yield f"{share_both:.0%} of the citations are listed in both directions: keep one of each"
    if graph.day_N is None:
        return
    num_later = count_later(citations, graph.day_N, graph.is_dated_N)
    if num_later > num_edges / 2 and share_both <= BOTH_SHARE:
        later = f"{num_later:,} of {num_edges:,} citations go to later papers"
        yield f"{later}: are citing and cited swapped?"
    elif num_later:
        yield f"{num_later:,} of {num_edges:,} citations go to later papers"


def _hub_warnings(citations: Csr, graph: CitationGraph) -> Iterator[str]:
    num_papers = len(graph.id_N)
    for degree_N, what in ((citations.in_degree_N, "is cited by"), (citations.degree_N, "cites")):
        top = np.argsort(degree_N)[::-1][:SHOWN]
        for paper in top:
            if degree_N[paper] > max(HUB_LEAST, HUB_SHARE * num_papers):
                share = degree_N[paper] / num_papers
                yield f"{graph.id_N[paper]} {what} {degree_N[paper]:,} papers, {share:.0%} of all"


def _inspect_split(
    citations: Csr, graph: CitationGraph, result: Inspection, config: DataConfig
) -> None:
    try:
        if graph.day_N is None:
            split = hold_out_at_random(
                citations,
                share=config.holdout,
                num_negatives=config.eval_negatives,
                seed=config.seed,
            )
        else:
            split = hold_out_by_date(
                citations,
                graph.day_N,
                share=config.holdout,
                num_negatives=config.eval_negatives,
                seed=config.seed,
            )
    except CiteflowError as error:
        result.split = {"kind": "none", "reason": f"{error.what}: {error.hint or error.value}"}
        result.warnings.append(f"no citation can be held out: {error.hint or error.value}")
        return
    num_test = len(split.test.source_P)
    result.split = {
        "kind": "random" if graph.day_N is None else "by date",
        "sources": len(np.unique(split.test.source_P)),
        "held_out": 2 * num_test,
        "ranked_against": split.test.negative_PK.shape[1],
        "candidates": split.candidates._asdict() if split.candidates else {},
    }
    if num_test < FEW_SOURCES:
        result.warnings.append(f"test sources: {num_test}; a figure of so few says little")


def as_table(result: Inspection) -> str:
    """Render the facts for a terminal."""
    candidates = result.split.get("candidates")
    rows = {
        "what it is": f"{result.format}: {result.because}",
        "papers": f"{result.papers:,}",
        "citations": f"{result.citations:,}",
        "unknown papers": f"{result.unknown:,} citations" if result.unknown else "",
        "repeated, self": f"{result.repeated:,}, {result.self_citations:,}",
        "dates": _pairs(result.dates) or "none: the split is random",
        "text": ", ".join(result.text) or "none",
        "features": _short(result.features) or ("of the text" if result.text else "none"),
        "ignored": _pairs(result.ignored),
        "dropped": _pairs(result.dropped),
        "split": _pairs({key: value for key, value in result.split.items() if key != "candidates"}),
        "candidates": _pairs(candidates) if isinstance(candidates, dict) else "",
        "read": "; ".join(result.remarks),
    }
    lines = [f"{name:<15} {value}" for name, value in rows.items() if value]
    lines += [f"{'look at':<15} {warning}" for warning in result.warnings]
    return "\n".join([*lines, f"{'next':<15} {result.next}"] if result.next else lines)


def _pairs(values: dict[str, object] | dict[str, str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _short(names: list[str]) -> str:
    return and_more(names[:8], len(names))
