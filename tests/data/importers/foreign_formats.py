"""One small citation graph, written in every format that is imported."""

import csv
import gzip
import json
from pathlib import Path

import h5py
import networkx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse

N = 24
YEARS = [2000 + row // 4 for row in range(N)]
EDGES = [(row, row - step) for row in range(N) for step in (1, 3, 4, 7) if row >= step]


def title(row):
    return f'Graphs and "words", part {row}'


def ids(prefix="p"):
    return [f"{prefix}{row}" for row in range(N)]


def references(row, prefix="p"):
    return [f"{prefix}{cited}" for citing, cited in EDGES if citing == row]


def lines(path, rows, separator="\t"):
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))


def json_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_native(folder, prefix="p", *, dates=None, titles=True):
    """The same graph as a citation folder."""
    columns = {"id": ids(prefix)}
    if dates is not None:
        columns["date"] = dates
    if titles:
        columns["title"] = [title(row) for row in range(N)]
    pq.write_table(pa.table(columns), folder / "papers.parquet")
    edges = {
        name: [f"{prefix}{edge[at]}" for edge in EDGES]
        for at, name in enumerate(("citing", "cited"))
    }
    pq.write_table(pa.table(edges), folder / "citations.parquet")


def write_edges_csv(folder):
    lines(
        folder / "edges.csv", [("source", "target"), *((f"p{a}", f"p{b}") for a, b in EDGES)], ","
    )


def write_edges_headerless(folder):
    lines(folder / "edges.tsv", ((f"p{a}", f"p{b}") for a, b in EDGES))


def write_snap(folder):
    rows = ["# Directed graph", f"# Nodes: {N} Edges: {len(EDGES)}", "# FromNodeId\tToNodeId"]
    (folder / "cit.txt").write_text("\n".join(rows + [f"{a}\t{b}" for a, b in EDGES]) + "\r\n")


def write_snap_dates(folder):
    write_snap(folder)
    rows = [f"{'11' * (row % 2)}{row:07}\t{year}-03-01" for row, year in enumerate(YEARS)]
    (folder / "cit-dates.txt").write_text("\n".join(["#Id\tDate", *rows]) + "\n")


def write_konect(folder):
    rows = [f"{a + 1} {b + 1} 1 978303600" for a, b in EDGES]
    (folder / "out.cit").write_text(
        "\n".join(["% asym positive", f"% {len(EDGES)} {N} {N}", *rows])
    )
    (folder / "meta.cit").write_text("name: Citations\ncode: CI\n")


def write_gephi(folder):
    rows = [
        (f"p{row}", f'"{title(row).replace(chr(34), chr(34) * 2)}"', "", year, 3)
        for row, year in enumerate(YEARS)
    ]
    lines(folder / "nodes.csv", [("Id", "Label", "timeset", "year", "In-Degree"), *rows], ",")
    ends = [(f"p{a}", f"p{b}", "Directed", at, "1.0") for at, (a, b) in enumerate(EDGES)]
    lines(folder / "edges.csv", [("Source", "Target", "Type", "Id", "Weight"), *ends], ",")


def _cells(form):
    """The references of each paper in one cell."""
    cited = {row: [f"p{b}" for a, b in EDGES if a == row] for row in range(N)}
    return {row: form(each) for row, each in cited.items()}


def _write_reference_list(folder, form):
    cell = _cells(form)
    rows = [
        {"id": f"p{row}", "title": title(row), "publication_year": year, "cited_by_count": 3}
        | {"referenced_works": cell[row]}
        for row, year in enumerate(YEARS)
    ]
    with (folder / "works.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_reference_list(folder):
    _write_reference_list(folder, "|".join)


def write_reference_list_python(folder):
    _write_reference_list(folder, str)


def write_parquet_cells(folder):
    cell = _cells("; ".join)
    rows = [
        {"id": f"p{row}", "title": title(row), "year": year, "references": cell[row]}
        for row, year in enumerate(YEARS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "works.parquet")


def _graph():
    graph = networkx.DiGraph()
    for row, year in enumerate(YEARS):
        graph.add_node(f"p{row}", title=title(row), year=year, n_citation=4)
    graph.add_edges_from((f"p{a}", f"p{b}") for a, b in EDGES)
    return graph


def write_graphml(folder):
    networkx.write_graphml(_graph(), folder / "g.graphml")


def write_gexf(folder):
    networkx.write_gexf(_graph(), folder / "g.gexf")


def write_pajek(folder):
    rows = [
        f"*Vertices {N}",
        *(f'{row + 1} "p{row}" 0.5 0.5' for row in range(N)),
        "% a comment",
        "*Arcs",
    ]
    half = len(EDGES) // 2
    rows += [f"{a + 1} {b + 1} 1" for a, b in EDGES[:half]]
    rows += ["*Arcslist", *(f"{a + 1} {b + 1}" for a, b in EDGES[half:])]
    (folder / "g.net").write_text("\r\n".join(rows))


def openalex_works():
    for row, year in enumerate(YEARS):
        yield {
            "id": f"https://openalex.org/W{row}", "display_name": title(row), "title": title(row),
            "publication_year": year, "publication_date": f"{year}-05-02", "cited_by_count": 7,
            "authorships": [{"author": {"id": "https://openalex.org/A1"}}],
            "abstract_inverted_index": {"words": [1], "Some": [0], "again": [2]},
            "referenced_works": references(row, "https://openalex.org/W"),
        }  # fmt: skip


def write_openalex(folder):
    json_lines(folder / "works.jsonl", openalex_works())


def write_openalex_pages(folder):
    works = list(openalex_works())
    for number, page in enumerate((works[:10], works[10:])):
        (folder / f"page{number}.json").write_text(
            json.dumps({"meta": {"count": N}, "results": page}, indent=1)
        )


def write_openalex_snapshot(folder):
    works = list(openalex_works())
    for number, part in enumerate((works[:10], works[10:])):
        below = folder / "works" / f"updated_date=2024-01-0{number + 1}"
        below.mkdir(parents=True)
        text = "".join(json.dumps(work) + "\n" for work in part)
        (below / "part_000.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "works" / "manifest").write_text('{"entries": []}')
    (folder / "authors").mkdir()
    json_lines(
        folder / "authors" / "part_000", [{"id": "https://openalex.org/A1", "works_count": 3}]
    )


def write_s2_api(folder):
    json_lines(folder / "papers.jsonl", (
        {"paperId": f"p{row}", "corpusId": row, "title": title(row), "year": year,
         "citationCount": 2,
         "references": [*({"paperId": each} for each in references(row)), {"paperId": None}]}
        for row, year in enumerate(YEARS)))  # fmt: skip


def write_s2_datasets(folder):
    json_lines(folder / "papers-part0.jsonl", (
        {"corpusid": row, "title": title(row), "year": year, "publicationdate": None,
         "citationcount": 2}
        for row, year in enumerate(YEARS)))  # fmt: skip
    json_lines(folder / "citations-part0.jsonl", (
        {"citationid": at, "citingcorpusid": a, "citedcorpusid": b, "isinfluential": False}
        for at, (a, b) in enumerate(EDGES)))  # fmt: skip


def _dblp(row):
    return {"id": f"p{row}", "title": title(row), "year": YEARS[row], "n_citation": 5,
            "authors": [{"name": "A"}], "references": references(row)}  # fmt: skip


def write_dblp_v10(folder):
    json_lines(folder / "dblp-ref-0.json", map(_dblp, range(N)))


def write_dblp_v12(folder):
    index = {"IndexLength": 1, "InvertedIndex": {"a": [0]}}
    rows = [json.dumps({**_dblp(row), "indexed_abstract": index})
            for row in range(N)]  # fmt: skip
    (folder / "dblp.v12.json").write_text("[\n" + "\n,".join(rows) + "\n]\n")


def write_dblp_v13(folder):
    rows = []
    for row in range(N):
        record = _dblp(row)
        record["_id"] = record.pop("id")
        record["year"] = "#year#"
        rows.append(json.dumps(record, indent=4).replace('"#year#"', f"NumberInt({YEARS[row]})"))
    (folder / "dblpv13.json").write_text("[" + ",\n".join(rows) + "]")


def write_bibtex(folder):
    rows = [
        f"@article{{p{row},\n  title = {{{title(row)}}},\n  year = {year},\n"
        f"  cites = {{{', '.join(references(row))}}}\n}}\n"
        for row, year in enumerate(YEARS)
    ]
    (folder / "refs.bib").write_text("% a comment\n" + "\n".join(rows))


def write_arxiv(folder):
    """Ids 0704.0000 on, of the months of a year that the ids tell."""
    content = {
        f"{_arxiv(a)}": [f"arXiv:{_arxiv(b)}v2" for x, b in EDGES if x == a] for a in range(N)
    }
    (folder / "internal-references.json").write_text(json.dumps(content))


def _arxiv(row):
    return f"{YEARS[row] - 1993:02}05.{row:05}"


def write_planetoid(folder):
    rows = [(f"p{row}", *(int(at == row % 5) for at in range(5)), "Theory") for row in range(N)]
    lines(folder / "cora.content", rows)
    lines(folder / "cora.cites", ((f"p{b}", f"p{a}") for a, b in EDGES))


def write_parquet_one(folder):
    columns = {"paper_id": ids(), "title": [title(row) for row in range(N)], "pub_year": YEARS,
               "citation_count": [1] * N,
               "references": [references(row) for row in range(N)]}  # fmt: skip
    pq.write_table(pa.table(columns), folder / "corpus.parquet")


def write_spark(folder):
    for name in ("papers", "citations"):
        (folder / f"{name}.parquet").mkdir()
        (folder / f"{name}.parquet" / "_SUCCESS").touch()
    papers = pa.table({"id": ids(), "title": [title(row) for row in range(N)], "year": YEARS})
    for number, part in enumerate((papers.slice(0, 9), papers.slice(9))):
        pq.write_table(part, folder / "papers.parquet" / f"part-0000{number}.snappy.parquet")
    edges = pa.table({"citing": [f"p{a}" for a, _ in EDGES], "cited": [f"p{b}" for _, b in EDGES]})
    pq.write_table(edges, folder / "citations.parquet" / "part-00000.snappy.parquet")


def _matrix():
    return scipy.sparse.csr_matrix((np.ones(len(EDGES)), np.array(EDGES).T), (N, N))


def write_npz(folder):
    scipy.sparse.save_npz(folder / "adj.npz", _matrix())


def write_npz_csc(folder):
    scipy.sparse.save_npz(folder / "adj.npz", _matrix().tocsc())


def write_hdf5(folder):
    matrix = _matrix()
    with h5py.File(folder / "adj.h5", "w") as file:
        file["graph/indptr"] = matrix.indptr
        file["graph/indices"] = matrix.indices
        file["year"] = YEARS


def write_ogbn_arxiv(folder):
    raw = folder / "arxiv" / "raw"
    raw.mkdir(parents=True)
    tables = {
        "edge": "".join(f"{a},{b}\n" for a, b in EDGES),
        "num-node-list": f"{N}\n",
        "num-edge-list": f"{len(EDGES)}\n",
        "node_year": "".join(f"{year}\n" for year in YEARS),
        "node-feat": "".join(f"{row}.5,1,2\n" for row in range(N)),
        "node-label": "3\n" * N,
    }
    for name, text in tables.items():
        (raw / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "arxiv" / "mapping").mkdir()
    mapping = "node idx,paper id\n" + "".join(f"{row},p{row}\n" for row in range(N))
    (folder / "arxiv" / "mapping" / "nodeidx2paperid.csv.gz").write_bytes(
        gzip.compress(mapping.encode())
    )


YEAR_TEXT = [str(year) for year in YEARS]

FORMATS = {
    # name: (writer, prefix of ids, dates, has titles)
    "edge list with a header": (write_edges_csv, "p", None, False),
    "edge list without": (write_edges_headerless, "p", None, False),
    "SNAP": (write_snap, "", None, False),
    "SNAP with dates": (write_snap_dates, "", [f"{year}-03-01" for year in YEARS], False),
    "KONECT": (write_konect, 1, None, False),
    "Gephi": (write_gephi, "p", YEAR_TEXT, True),
    "reference list": (write_reference_list, "p", YEAR_TEXT, True),
    "reference list of Python": (write_reference_list_python, "p", YEAR_TEXT, True),
    "Parquet, cells of references": (write_parquet_cells, "p", YEAR_TEXT, True),
    "GraphML": (write_graphml, "p", YEAR_TEXT, True),
    "GEXF": (write_gexf, "p", YEAR_TEXT, True),
    "Pajek": (write_pajek, "p", None, False),
    "OpenAlex": (
        write_openalex,
        "https://openalex.org/W",
        [f"{year}-05-02" for year in YEARS],
        True,
    ),
    "OpenAlex pages": (
        write_openalex_pages,
        "https://openalex.org/W",
        [f"{year}-05-02" for year in YEARS],
        True,
    ),
    "OpenAlex snapshot": (
        write_openalex_snapshot,
        "https://openalex.org/W",
        [f"{year}-05-02" for year in YEARS],
        True,
    ),
    "Semantic Scholar API": (write_s2_api, "p", YEAR_TEXT, True),
    "Semantic Scholar datasets": (write_s2_datasets, "", YEAR_TEXT, True),
    "DBLP v10": (write_dblp_v10, "p", YEAR_TEXT, True),
    "DBLP v12": (write_dblp_v12, "p", YEAR_TEXT, True),
    "DBLP v13": (write_dblp_v13, "p", YEAR_TEXT, True),
    "BibTeX": (write_bibtex, "p", YEAR_TEXT, True),
    "arXiv references": (write_arxiv, None, [f"{year + 7}-05" for year in YEARS], False),
    "Planetoid": (write_planetoid, "p", None, False),
    "Parquet": (write_parquet_one, "p", YEAR_TEXT, True),
    "Spark": (write_spark, "p", YEAR_TEXT, True),
    "NPZ": (write_npz, "", None, False),
    "NPZ, CSC": (write_npz_csc, "", None, False),
    "HDF5": (write_hdf5, "", YEAR_TEXT, False),
    "ogbn-arxiv": (write_ogbn_arxiv, "p", YEAR_TEXT, False),
}


def write(folder: Path, name: str) -> Path:
    """Write a format into a folder of its own."""
    folder.mkdir(parents=True)
    FORMATS[name][0](folder)
    return folder


def expected(name):
    """Ids, edges by id, days and titles by id that each format must give."""
    _, prefix, dates, has_titles = FORMATS[name]
    if prefix is None:
        named = [_arxiv(row) for row in range(N)]
    elif prefix == 1:
        named = [str(row + 1) for row in range(N)]
    else:
        named = ids(prefix)
    days = dates and [int(np.datetime64(date, "D").astype(int)) for date in dates]
    return named, days, [title(row) for row in range(N)] if has_titles else None
