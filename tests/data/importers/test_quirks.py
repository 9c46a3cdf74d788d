"""What real files do: each kind of oddity once, and the message where there is no way on."""

import gzip
import json
import pickle

import foreign_formats as foreign
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from citeflow.config import Config, DataConfig
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.data.importers import registry, semantic_scholar
from citeflow.data.importers.base import Notes
from citeflow.data.importers.columns import date_text, is_count
from citeflow.data.importers.records import abstract_of_index
from citeflow.data.importers.source import open_source
from citeflow.data.importers.writer import write_folder
from citeflow.errors import DataError, MissingPackageError, NotFoundError

WORK = {"id": "W1", "title": "T", "publication_year": 2001, "referenced_works": ["W2"]}


def read(path, tmp_path, **settings):
    raw = download_dataset(str(path), data_root=tmp_path / "root", config=Config())
    return read_raw(raw, DataConfig(**settings))


def imported(path, tmp_path):
    notes = Notes()
    folder = tmp_path / "out"
    folder.mkdir()
    found = registry.recognize(path)
    return write_folder(found.importer.read(found.source, notes), notes, folder)


def write_file(tmp_path, content, name="data"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a,b\nc,a\nb,c\n",
        "\ufeffsource;target;weight\na;b;1\nc;a;2\nb;c;1\n",
        "sep=|\ncited|citing\nb|a\na|c\nc|b\n",
        "# a comment\n# FromNodeId  ToNodeId\na   b\n  c\ta\n\nb c\n",
        "source\ttarget\na\tb\nc\ta\nb\tc\n".encode("utf-16"),
        "a\tb\n# in between\nc\ta\r\nb\tc",
        "oci,work_id,Referenced_Work_ID\n1,a,b\n2,c,a\n3,b,c\n",
        ":START_ID,:END_ID,:TYPE\na,b,CITES\nc,a,CITES\nb,c,CITES\n",
        '{"paperId": "a", "title": "A", "references": [{"paperId": "b"}]}\n'
        '{"paperId": "c", "title": "C", "references": [{"paperId": "a"}]}\n'
        '{"paperId": "b", "title": "B", "references": [{"citedPaper": {"paperId": "c"}}]}\n',
    ],
)
def test_list_of_citations_is_read_however_it_is_written(content, tmp_path):
    graph = read(write_file(tmp_path, content), tmp_path)
    pairs = {tuple(graph.id_N[edge]) for edge in graph.edge_2E.T}
    assert pairs == {("a", "b"), ("c", "a"), ("b", "c")}


def test_numbers_are_papers_in_their_order(tmp_path):
    graph = read(write_file(tmp_path, "10 2\n2 0\n1 0\n"), tmp_path)
    assert graph.id_N.tolist() == [0, 1, 2, 10]


def test_reference_outside_of_the_table_follows_the_setting(tmp_path):
    works = [WORK, {**WORK, "id": "W3"}, {**WORK, "id": "W2", "referenced_works": ["W9"]}]
    path = write_file(tmp_path, "\n".join(map(json.dumps, works)))
    with pytest.raises(DataError, match="is not an id of") as caught:
        read(path, tmp_path)
    assert "data.unknown=drop" in caught.value.hint
    assert read(path, tmp_path, unknown="drop").counts == {"unknown": 1}


def test_dropped_rows_are_counted_and_the_first_three_shown(tmp_path):
    works = [{**WORK, "id": f"W{number}", "referenced_works": ["W1", None]} for number in range(5)]
    rows = [*works, *works[:4], {**WORK, "id": None}]
    result = imported(write_file(tmp_path, "\n".join(map(json.dumps, rows))), tmp_path)
    assert (result.papers, result.citations) == (5, 9)
    assert result.dropped == {
        "papers without an id": 1,
        "citations without a citing or a cited paper": 10,
        "papers whose id appeared before": 4,
    }
    assert result.examples["papers whose id appeared before"] == ["W0", "W1", "W2"]


def test_counts_of_citations_are_named_and_are_no_features(tmp_path):
    folder = foreign.write(tmp_path / "in", "Gephi")
    result = imported(folder, tmp_path)
    assert result.columns == ["id", "title", "date"]
    assert result.ignored["nodes.csv: In-Degree"] == "counted from the citations"
    for name in ("cited_by_count", "citationCount", "n_citation", "Times Cited", "InDegree",
                 "num_citations", "referencecount", "pageranks", "citations"):  # fmt: skip
        assert is_count(name), name
    for name in ("year", "t0", "city", "pages", "word_count", "embedding_3", "num_authors"):
        assert not is_count(name), name


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("2001-02-03T04:05:06Z", 1999), "2001-02-03"),
        (("2001-02-30", None), "2001"),
        ((None, 2001.0), "2001"),
        (("", "2001.0"), "2001"),
        (("Mon, 2 Apr 2007 19:18:42 GMT", None), "2007-04-02"),
        (("n/a", 0), None),
        ((None, True), None),
    ],
)
def test_date_is_what_a_person_would_read(values, text):
    assert date_text(*values) == text


def test_abstract_is_put_together_from_its_index():
    assert abstract_of_index({"graphs": [1, 3], "of": [2], "On": [0]}) == "On graphs of graphs"


def test_pickles_are_refused_with_the_reason_and_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for protocol in (2, 4):
        path = write_file(tmp_path, pickle.dumps(Bomb(), protocol), "graph.gpickle")
        with pytest.raises(DataError, match="a Python pickle, which runs code") as caught:
            read(path, tmp_path)
        assert "write_graphml" in caught.value.hint
    np.savez(tmp_path / "a.npz", edge_index=np.array([{}], object))
    with pytest.raises(DataError, match="allow_pickle"):
        read(tmp_path / "a.npz", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"%PDF-1.7\n", "is a PDF document", "tables and graphs"),
        (b"7z\xbc\xaf\x27\x1c\x00", "a 7z archive", "unpack it"),
        (b"<!DOCTYPE html><html>", "is a web page", "login"),
        ("Only some prose in a file.\nWith lines, of any length, here and there.\n",
         "no dataset that citeflow knows: it begins with", "it reads OpenAlex works"),
        ("% bip unweighted\n1 2\n", "a bipartite graph", "one kind"),
        ("@article{a, title={A}, year={2000}}\n@article{b, title={B}}", "no entry cites another",
         "field references"),
        ("*Vertices 2\n1 \"a\"\n2 \"b\"\n*Arcs\n1 3\n", "line 5: numbers of vertices from 1 to 2",
         ""),
        ('<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph', "not XML", ""),
        (json.dumps(WORK) + '\n{"id": "W2", "referenced_works": "W1"}\n',
         "line 2: a field of another type", ""),
        (json.dumps(WORK) + '\n{"id": "W2", "refer', "line 2: not JSON", "cut short"),
        (json.dumps([WORK, WORK], indent=1)[:-30], "cut short", ""),
        ("source,target\na,b\nb,c,d\n", "line 3: 2 values expected: 'b,c,d'", ""),
        (b"source,target\na,b\nb,c,\xe3", "line 3: not UTF-8", "iconv"),
        (gzip.compress(b"source,target\n" + b"a,b\n" * 9, mtime=0)[:-6], "cannot be read",
         "copy or download"),
    ],
)  # fmt: skip
def test_source_that_cannot_be_read_says_why(content, message, hint, tmp_path):
    with pytest.raises(DataError) as caught:
        read(write_file(tmp_path, content), tmp_path)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert not list((tmp_path / "root").rglob("*.parquet"))


def test_table_of_papers_that_cannot_be_read_is_not_left_out(tmp_path):
    write_file(tmp_path, "paper,year\na,2000\n", "papers.csv")
    write_file(tmp_path, "citing,cited\na,b\n", "citations.csv")
    with pytest.raises(DataError, match=r"papers\.csv has no column: id"):
        read(tmp_path, tmp_path)


def test_two_tables_of_papers_are_named(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_file(tmp_path / "in" / name, "Id,Label\na,A\nb,B\n", "nodes.csv")
        write_file(tmp_path / "in" / name, "Source,Target\na,b\n", "edges.csv")
    with pytest.raises(
        DataError, match=r"several tables of papers: one/nodes\.csv, two/nodes\.csv"
    ):
        read(tmp_path / "in", tmp_path)


def test_incoming_citations_of_semantic_scholar_count_too(tmp_path):
    record = {"id": "b", "title": "B", "year": 2000, "outCitations": ["c"], "inCitations": ["a"]}
    path = write_file(tmp_path, json.dumps(record) + "\n")
    parts = list(semantic_scholar.read(open_source(path), Notes()))
    assert [part.batch.to_pylist() for part in parts[1:]] == [
        [{"citing": "b", "cited": "c"}], [{"citing": "a", "cited": "b"}],
    ]  # fmt: skip


def test_same_label_twice_makes_numbers_the_ids_of_pajek(tmp_path):
    text = '*Vertices 3\n1 "On graphs"\n2 "On graphs"\n*Arcs\n1 2\n3 1\n'
    graph = read(write_file(tmp_path, text), tmp_path)
    assert graph.id_N.tolist() == [1, 2, 3]
    assert graph.title_N.tolist() == ["On graphs", "On graphs", ""]


def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    folder = foreign.write(tmp_path / "in", "GraphML")
    monkeypatch.setitem(__import__("sys").modules, "networkx", None)
    with pytest.raises(MissingPackageError, match="networkx") as caught:
        read(folder, tmp_path)
    assert ".[import]" in caught.value.hint


def test_nothing_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        registry.recognize(tmp_path / "none")
    with pytest.raises(NotFoundError):
        read(tmp_path, tmp_path)


def test_abstracts_of_a_file_of_their_own_are_joined(tmp_path):
    folder = foreign.write(tmp_path / "in", "Semantic Scholar datasets")
    rows = [{"corpusid": row, "openaccessinfo": {}, "abstract": f"About {row}"} for row in range(9)]
    foreign.json_lines(folder / "abstracts-part0.jsonl", rows)
    imported(folder, tmp_path)
    abstracts = pq.read_table(tmp_path / "out" / "papers.parquet").column("abstract").to_pylist()
    assert abstracts[:9] == [row["abstract"] for row in rows]
    assert set(abstracts[9:]) == {None}


def test_work_longer_than_what_is_looked_at_is_a_work(tmp_path):
    authors = [{"author": {"display_name": "A" * 90}}] * 5000
    works = [
        {**WORK, "id": f"https://openalex.org/W{number}", "authorships": authors}
        for number in range(2)
    ]
    path = write_file(tmp_path, "\n".join(map(json.dumps, works)))
    assert imported(path, tmp_path).papers == 2


def test_array_that_claims_more_than_its_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("edge_index", (2, 10**10), "i8", chunks=(2, 1000))
    with pytest.raises(DataError, match="larger than the file"):
        read(tmp_path / "a.h5", tmp_path)


def test_numbers_far_apart_are_ids_and_not_rows(tmp_path):
    np.savez(tmp_path / "a.npz", edge_index=np.array([[2**40, 7], [7, 5]]))
    assert read(tmp_path / "a.npz", tmp_path).id_N.tolist() == [5, 7, 2**40]


def test_parts_with_other_columns_are_one_table(tmp_path):
    for name, column in (("a", "w1"), ("b", "title")):
        table = pa.table({"id": [name], column: ["1"], "references": [["a"]]})
        pq.write_table(table, tmp_path / f"part-{name}.parquet")
    result = imported(tmp_path, tmp_path)
    assert result.columns == ["id", "w1"]
    assert result.ignored == {"title": "the first file of papers has no such column"}


def test_mapping_of_another_length_is_refused(tmp_path):
    folder = foreign.write(tmp_path / "in", "ogbn-arxiv")
    mapping = folder / "arxiv" / "mapping" / "nodeidx2paperid.csv.gz"
    mapping.write_bytes(gzip.compress(b"node idx,paper id\n0,p0\n"))
    with pytest.raises(DataError, match="24 rows expected: found 1"):
        read(folder, tmp_path)


def test_arxiv_metadata_gives_dates_and_text_to_lists_of_references(tmp_path):
    rows = [
        {
            "id": f"0704.000{number}",
            "title": f"Paper {number}",
            "abstract": "Words",
            "versions": [{"version": "v1", "created": f"Mon, {number + 2} Apr 2007 19:18:42 GMT"}],
            "update_date": "2010-01-01",
        }
        for number in range(3)
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    foreign.json_lines(folder / "arxiv-metadata-oai-snapshot.json", rows)
    references = {"0704.0002": ["0704.0000v3", "arXiv:0704.0001"], "0704.0001": ["0704.0000"]}
    write_file(folder, json.dumps(references), "internal-citations.json")
    graph = read(folder, tmp_path)
    assert graph.edge_2E.tolist() == [[2, 2, 1], [0, 1, 0]]
    days = [str(np.datetime64(int(day), "D")) for day in graph.day_N]
    assert days == ["2007-04-02", "2007-04-03", "2007-04-04"]
    assert graph.title_N.tolist() == ["Paper 0", "Paper 1", "Paper 2"]


def test_columns_beyond_those_of_konect_are_named_by_number(tmp_path):
    path = write_file(tmp_path, "% asym positive\n1 2 1 978303600 5\n2 3 1 978303601 6\n", "out.x")
    notes = Notes()
    found = registry.recognize(path)
    *_, last = found.importer.read(found.source, notes)
    assert (found.importer.name, last.batch.num_rows) == ("konect", 2)
    assert list(notes.ignored)[-1] == "out.x: column 5"


@pytest.mark.parametrize("value", ["1e40", "nan", "word"])
def test_feature_of_planetoid_that_is_no_number_is_named_by_its_line(tmp_path, value):
    foreign.write(tmp_path / "cora", "Planetoid")
    path = tmp_path / "cora" / "cora.content"
    lines = path.read_text().split("\n")
    lines[2] = lines[2].replace("\t0\t", f"\t{value}\t", 1)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"cora.content, line 3: 5 numbers expected: .*{value}"):
        read(tmp_path / "cora", tmp_path)


def test_feature_of_an_array_beyond_float32_is_refused(tmp_path):
    path = tmp_path / "graph.npz"
    x_NF = np.ones((4, 2))
    x_NF[2, 1] = 1e300
    edges = np.array([[1, 2, 3], [0, 1, 2]])
    np.savez(path, edge_index=edges, features=x_NF)
    with pytest.raises(DataError, match="not a finite number"):
        read(path, tmp_path)
