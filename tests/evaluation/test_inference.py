"""Full-graph inference in chunks, by one process or several, equals the encoder on the whole graph.

Legend: N papers, H hidden channels.
"""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from two_ranks import CASES, CHUNK
from whole_graphs import graph_of, model_of

from citeflow.evaluation import inference
from citeflow.evaluation.inference import embed_all, embed_new
from citeflow.models.tensors import encoder_input, gather_features, to_sparse_tensor

NUM_PAPERS = 60
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def graph():
    return graph_of(NUM_PAPERS)


def embed_at_once(model, graph):
    """Run the encoder on the whole graph."""
    x_NF = encoder_input(graph.x_NF, graph.num_papers, model.config)
    x = gather_features(x_NF, np.arange(graph.num_papers))
    with torch.no_grad():
        return model.encoder(x, to_sparse_tensor(graph.neighbors, graph.num_papers))


@pytest.mark.parametrize("chunk", [1, 7, 32_768])
@pytest.mark.parametrize("aggr", ["mean", "add", "max"])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_chunks_equal_the_encoder_on_the_whole_graph(graph, monkeypatch, num_layers, aggr, chunk):
    monkeypatch.setattr(inference, "CHUNK", chunk)
    model = model_of(graph, num_layers=num_layers, aggr=aggr)
    embedding_NH = embed_all(model, graph)
    assert (embedding_NH.shape, embedding_NH.dtype) == ((NUM_PAPERS, 6), torch.float32)
    torch.testing.assert_close(embedding_NH, embed_at_once(model, graph))


@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_features_of_16_bits_are_those_of_32(graph, monkeypatch, num_layers):
    monkeypatch.setattr(inference, "CHUNK", 7)
    half = dataclasses.replace(graph, x_NF=graph.x_NF.astype(np.float16))
    full = dataclasses.replace(graph, x_NF=half.x_NF.astype(np.float32))
    model = model_of(full, num_layers=num_layers)
    assert torch.equal(embed_all(model, half), embed_all(model, full))
    rows = np.arange(5, 9)
    new = [embed_new(model, each, each.x_NF[3].astype(np.float32), rows) for each in (half, full)]
    assert torch.equal(*new)


@pytest.mark.parametrize("features", ["given", "ones"])
@pytest.mark.parametrize("num_layers", [0, 2])
def test_papers_without_features_are_embedded(monkeypatch, num_layers, features):
    monkeypatch.setattr(inference, "CHUNK", 7)
    bare = graph_of(NUM_PAPERS, features=False)
    model = model_of(bare, num_layers=num_layers, features=features, normalize=True)
    torch.testing.assert_close(embed_all(model, bare), embed_at_once(model, bare))


def test_embed_all_drops_nothing_and_keeps_the_mode(graph):
    model = model_of(graph, dropout=0.5)
    expected = embed_all(model, graph)
    model.train()
    found = embed_all(model, graph)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert model.training
    assert model.encoder.training


class OneOfSeveral:
    """A process the others of which compute nothing."""

    def __init__(self, rows):
        self._rows = rows
        self.gathered = []

    def rows(self, num_rows):
        return self._rows

    def empty(self, num_rows, width):
        return torch.full((num_rows, width), torch.nan)

    def all_gather_rows(self, x):
        self.gathered.append(x.isnan().all(dim=1).logical_not().nonzero().flatten().tolist())
        x.nan_to_num_(0.0)


@pytest.mark.parametrize("rows", [range(0, 25), range(25, 60), range(30, 30)])
def test_process_computes_its_rows_of_every_layer(graph, monkeypatch, rows):
    monkeypatch.setattr(inference, "CHUNK", 10)
    sharing = OneOfSeveral(rows)
    embed_all(model_of(graph), graph, sharing)
    assert sharing.gathered == [list(rows)] * 2


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Folder with what two ranks embedded."""
    folder = tmp_path_factory.mktemp("two")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(folder)]
    environments = [
        {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        for rank in "01"
    ]
    processes = [subprocess.Popen(command, env=environment) for environment in environments]
    try:
        codes = [process.wait(TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0, 0]
    return folder


@pytest.mark.parametrize("machines", ["one machine", "two machines"])
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one_process(two_ranks, monkeypatch, name, machines):
    """Bit for bit, where the chunks of one process are those of the two."""
    monkeypatch.setattr(inference, "CHUNK", CHUNK)
    num_papers, changes = CASES[name]
    whole = graph_of(num_papers)
    expected = embed_all(model_of(whole, **changes), whole)
    first, second = (
        torch.from_numpy(np.load(two_ranks / f"{name}-{machines}-{rank}.npy")) for rank in (0, 1)
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, expected) or num_papers % (2 * CHUNK)


@pytest.mark.parametrize("aggr", ["mean", "max"])
@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("features", ["given", "ones"])
def test_embed_new_gives_what_a_stored_paper_with_the_same_neighbors_has(
    graph, features, num_layers, aggr
):
    model = model_of(graph, features=features, num_layers=num_layers, aggr=aggr)
    expected_NH = embed_all(model, graph)
    for paper in range(graph.num_papers):
        found_H = embed_new(model, graph, graph.x_NF[paper], graph.neighbors.row(paper))
        torch.testing.assert_close(found_H, expected_NH[paper], atol=1e-5, rtol=1e-5)


def test_embed_new_takes_a_paper_without_neighbors_and_a_graph_without_features(graph):
    bare = graph_of(NUM_PAPERS, features=False)
    for each in (graph, bare):
        model = model_of(each)
        x_F = None if each.x_NF is None else each.x_NF[3]
        found = [embed_new(model, each, x_F, np.array(rows, np.int32)) for rows in ([], [4, 9])]
        assert all(torch.isfinite(each_H).all() for each_H in found)
        assert not torch.allclose(*found)
