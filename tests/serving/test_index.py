"""The ServingIndex needs nothing else, is made once, and is verified when it is opened."""

import json
import shutil

import numpy as np
import pytest

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.queries import QueryPaper
from citeflow.serving.citation.index import ServingIndex, write_index


@pytest.fixture
def copy(index_folder, tmp_path):
    return shutil.copytree(index_folder, tmp_path / "copy")


def test_an_index_answers_where_neither_run_nor_graph_is(copy, index):
    opened = ServingIndex.open(copy)
    opened.warm_up()
    query, wanted = QueryPaper(paper="p300"), Wanted(exact=False)
    assert opened.engine.answer(query, wanted) == index.engine.answer(query, wanted)
    assert opened.manifest.sha256 == index.manifest.sha256


def test_an_index_holds_no_pickle_and_no_code(index_folder):
    kinds = {file.suffix for file in index_folder.iterdir()}
    assert kinds <= {".npy", ".arrow", ".parquet", ".json", ".safetensors"}
    for file in index_folder.glob("*.npy"):
        np.load(file, allow_pickle=False)


def test_an_index_is_made_again_only_where_the_model_is_another(trained, index_folder):
    before = (index_folder / files.MANIFEST).stat().st_ino
    assert write_index(trained.model, trained.graph, index_folder) == index_folder
    assert (index_folder / files.MANIFEST).stat().st_ino == before


def test_an_index_has_the_cells_of_its_graph(trained, tmp_path):
    folder = tmp_path / "graph"
    with files.new_directory(folder) as work:
        files.link_files(trained.graph, work)
        (work / files.MANIFEST).unlink()
        files.save_array(work / "cell_center.npy", np.ones((2, 3), np.float32))
        files.save_array(work / "cell_ptr.npy", np.array([0, 1, 3]))
        files.save_array(work / "cell_index.npy", np.array([4, 1, 2], np.int32))
        manifest = files.read_manifest(trained.graph, "PreparedGraph")
        files.write_manifest(work, "PreparedGraph", inputs={}, facts=manifest.facts)
    index = ServingIndex.open(write_index(trained.model, folder, tmp_path / "index"))
    assert index.graph.cells.center_CF.tolist() == [[1.0] * 3] * 2
    assert [index.graph.cells.members.row(cell).tolist() for cell in (0, 1)] == [[4], [1, 2]]


@pytest.mark.parametrize(
    "name", ["embedding.npy", "papers.arrow", "model.json", "model.safetensors", "id_order.npy"]
)
def test_a_damaged_index_is_not_opened(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CorruptError, match="does not match its sha256"):
        ServingIndex.open(copy)
    (copy / name).unlink()
    with pytest.raises(CorruptError, match="missing"):
        ServingIndex.open(copy)


def test_a_folder_of_another_kind_is_not_opened(trained, tmp_path):
    with pytest.raises(CorruptError, match="a TrainedModel where a ServingIndex belongs"):
        ServingIndex.open(trained.model)
    with pytest.raises(NotFoundError, match="no ServingIndex here"):
        ServingIndex.open(tmp_path)


def test_facts_of_the_manifest_name_the_dataset(index_folder, trained):
    manifest = json.loads((index_folder / files.MANIFEST).read_text())
    model = files.read_manifest(trained.model, "TrainedModel")
    assert manifest["inputs"]["TrainedModel"] == model.sha256
    assert manifest["facts"]["num_papers"] == 400
    assert manifest["facts"]["valid_mrr"] == pytest.approx(model.number("valid_mrr"))
