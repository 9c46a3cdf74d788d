"""`citeflow import`, `inspect` and `init`."""

import json
import zipfile

import pyarrow.parquet as pq
import pytest

from citeflow.cli.main import main
from citeflow.config import load
from citeflow.data.datasets import download_dataset
from citeflow.graph.preparation import prepare
from citeflow.graph.prepared import PreparedGraph


@pytest.fixture
def works(tmp_path):
    path = tmp_path / "works"
    rows = [
        {
            "id": f"https://openalex.org/W{row}",
            "title": f"Title {row}",
            "publication_year": 2000 + row,
            "referenced_works": [f"https://openalex.org/W{cited}" for cited in range(row)][-3:],
        }
        for row in range(9)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_import_writes_a_citation_folder_and_its_facts(works, tmp_path, capsys):
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.write(works, "data/works")
    for number, source in enumerate((works, packed, packed.as_uri())):
        out = tmp_path / f"out{number}"
        assert main(["import", str(source), "-o", str(out)]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["format"], facts["papers"], facts["citations"]) == ("openalex", 9, 21)
        assert {path.name for path in out.iterdir()} == {"papers.parquet", "citations.parquet"}
        assert pq.read_schema(out / "papers.parquet").names == ["id", "title", "date"]
    assert main(["import", str(works), "-o", str(out)]) == 64
    assert "not empty" in capsys.readouterr().err
    assert main(["import", str(out), "-o", str(tmp_path / "other")]) == 64
    assert "a citation folder already" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_failed_import_leaves_nothing(works, tmp_path, capsys):
    works.write_text(works.read_text() + '\n{"id": 3}')
    assert main(["import", str(works), "-o", str(tmp_path / "out")]) == 65
    assert f"{works}, line 10: a field of another type" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["works"]


def test_inspect_prints_json_where_nobody_looks(works, capsys):
    assert main(["inspect", str(works)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["papers"], facts["citations"], facts["text"]) == (9, 21, ["title"])
    assert facts["split"]["kind"] == "by date"


def test_init_writes_a_folder_that_can_be_prepared(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["init", str(folder)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["next"] == f"citeflow run --dataset {folder}"
    assert "its figures say nothing" in captured.err
    config = load()
    raw = download_dataset(str(folder), data_root=tmp_path / "data", config=config)
    graph = PreparedGraph.open(prepare(raw, data_root=tmp_path / "data", config=config.data))
    assert graph.num_papers == 5
    assert main(["init", str(folder)]) == 64
