"""Errors and remarks of imported data name the user's own file, line and column."""

import gzip
import json
import re
import tarfile
import zipfile

import pytest

from citeflow.config import Config, DataConfig
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.errors import DataError

WORKS = [
    {
        "id": f"https://openalex.org/W{row}",
        "publication_year": 2000 + row,
        "cited_by_count": 3,
        "referenced_works": [f"https://openalex.org/W{each}" for each in range(row)],
    }
    for row in range(5)
]
WORKS[3]["referenced_works"].append("https://openalex.org/W99")
LINES = "\n".join(map(json.dumps, WORKS)).encode()
NODES = "Id;Label;Year;w\na;A;2000;1\nb;B;2001;2\nc;C;2002;3\nd;D;2003;4\n"
EDGES = "Source;Target\nb;a\nc;b\nd;a\n"


def read(source, tmp_path, **settings):
    raw = download_dataset(str(source), data_root=tmp_path / "root", config=Config())
    return read_raw(raw, DataConfig(**settings))


def pack(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("works.jsonl", LINES, "works.jsonl, line 4"),
        ("works.jsonl.gz", gzip.compress(LINES), "works.jsonl.gz, line 4"),
        ("page.json", json.dumps({"results": WORKS}, indent=1).encode(), "page.json, line 34"),
    ],
)
def test_unknown_paper_is_named_where_it_stands(name, content, place, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, tmp_path)
    assert f"{tmp_path / place}: column 'referenced_works' is not an id of" in str(caught.value)
    assert "W99" in caught.value.value


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("d;a", "d;zz", "edges.csv, line 4: column 'Target' is not an id of"),
        ("c;C;2002;3", "c;C;2002;x", "nodes.csv, line 4: column 'w' is not a number: 'x'"),
        ("b;B;2001", "b;B;", "nodes.csv, line 3: column 'Year' has no value"),
    ],
)
@pytest.mark.parametrize("packed", ["folder", "zip", "nested"])
def test_fault_in_tables_is_named_where_it_stands(old, new, message, packed, tmp_path):
    folder = tmp_path / "gephi"
    folder.mkdir()
    (folder / "nodes.csv").write_text(NODES.replace(old, new))
    (folder / "edges.csv").write_text(EDGES.replace(old, new))
    source, place = folder, str(folder)
    if packed == "zip":
        source = pack(
            tmp_path / "a.zip", {f"in/{each.name}": each.read_text() for each in folder.iterdir()}
        )
        place = f"{source}/in"
    elif packed == "nested":
        with tarfile.open(tmp_path / "inner.tar.xz", "w:xz") as file:
            file.add(folder, "in")
        source = pack(
            tmp_path / "a.zip", {"b/inner.tar.xz": (tmp_path / "inner.tar.xz").read_bytes()}
        )
        place = f"{source}/.*/in"
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read(source, tmp_path)
    assert re.search(f"{place}/{re.escape(message)}", str(caught.value))
    assert "root/raw" not in str(caught.value)


def test_source_that_is_gone_is_named_with_its_record(tmp_path):
    (tmp_path / "works.jsonl").write_bytes(LINES)
    raw = download_dataset(
        str(tmp_path / "works.jsonl"), data_root=tmp_path / "root", config=Config()
    )
    (tmp_path / "works.jsonl").unlink()
    with pytest.raises(DataError, match=r"works\.jsonl, citation 'https://openalex\.org/W3' to"):
        read_raw(raw, DataConfig())


def test_remarks_of_the_import_are_those_of_the_graph(tmp_path):
    (tmp_path / "works.jsonl").write_bytes(LINES + b"\n" + json.dumps(WORKS[0]).encode())
    remarks = read(tmp_path / "works.jsonl", tmp_path, unknown="drop").remarks
    assert remarks[0].startswith("read as OpenAlex works: works.jsonl has works")
    assert any("1 dropped: papers whose id appeared before" in remark for remark in remarks)
    assert any("1 of 11 citations dropped" in remark for remark in remarks)
    assert not any(".parquet" in remark for remark in remarks)
