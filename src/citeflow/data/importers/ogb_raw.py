"""OGB's raw folders without a split of links, such as ogbn-arxiv's.

ogbl-citation2, which has one, is read as it is by `data/ogb.py`; its tables are the same.
"""

import numpy as np
import pyarrow as pa
import pyarrow.csv

from citeflow.data import ogb
from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

NEEDED = ("edge.csv.gz", "num-node-list.csv.gz", "num-edge-list.csv.gz")
BATCH_ROWS = 1 << 20


def _raw(source: Source) -> tuple[SourceFile, ...]:
    return source.where(
        lambda file: (
            file.path.name == NEEDED[0]
            and all((file.path.parent / name).is_file() for name in NEEDED)
        )
    )


def sniff(source: Source) -> Evidence | None:
    """Recognize the tables of nodes and edges, which have no header; here the names count."""
    if len(found := _raw(source)) != 1:
        return None
    return Evidence(CERTAIN, f"{found[0].path.parent.name} has {', '.join(NEEDED)}")


def read(source: Source, notes: Notes) -> Stream:
    """Read nodes with years and features; ids are those of OGB's mapping, or else row numbers."""
    raw = _raw(source)[0].path.parent
    tables = ogb.read_tables(raw)
    if tables.num_papers > 100 * (tables.edge_2E.shape[1] + 1000):
        raise DataError(f"{raw}: too many papers for its citations", f"{tables.num_papers:,}")
    mapping = raw.parent / "mapping" / "nodeidx2paperid.csv.gz"
    ids = pa.array(np.arange(tables.num_papers)).cast(pa.string())
    if mapping.is_file():
        with SourceFile(mapping).damage_as_data_error():
            ids = pyarrow.csv.read_csv(mapping).columns[-1].cast(pa.string()).combine_chunks()
        if len(ids) != tables.num_papers:
            raise DataError(
                f"{mapping}: {tables.num_papers:,} rows expected", f"found {len(ids):,}"
            )
    for name in ("node-label.csv.gz", "node_species.csv.gz"):
        if (raw / name).is_file():
            notes.ignore(name, "the class of a paper")
    if (raw.parent / "split").is_dir():
        notes.ignore("split", "it is of nodes, not of citations")
    years = (
        None
        if tables.year_N is None
        else [f"{year:04}" if year else None for year in tables.year_N.tolist()]
    )
    yield base.papers(ids, date=years)
    if tables.x_NF is not None:
        yield base.Features(tables.x_NF)
    for start in range(0, tables.edge_2E.shape[1], BATCH_ROWS):
        edge_2B = tables.edge_2E[:, start : start + BATCH_ROWS]
        yield base.citations(ids.take(pa.array(edge_2B[0])), ids.take(pa.array(edge_2B[1])))


IMPORTER = Importer(name="ogb-raw", title="OGB raw folder", sniff=sniff, read=read)
