"""Papers that are embedded piece by piece, by one process or several, are embedded as by the encoder at once.

Legend: N papers, H width.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from two_ranks import CASES, PIECE
from whole_graphs import graph_of, model_of

from citeflow.evaluation import inference
from citeflow.evaluation.inference import embed_all
from citeflow.models.tensors import encoder_input, gather_features, to_sparse_tensor

NUM_PAPERS = 60
PATIENCE_S = 120


@pytest.fixture(scope="module")
def graph():
    return graph_of(NUM_PAPERS)


def at_once(model, graph):
    """The encoder on the whole graph."""
    x_NF = encoder_input(graph.x_NF, graph.num_papers, model.config)
    with torch.no_grad():
        return model.encoder(
            gather_features(x_NF, np.arange(graph.num_papers)),
            to_sparse_tensor(graph.neighbors, graph.num_papers),
        )


@pytest.mark.parametrize("piece", [1, 7, 60, 32_768])
@pytest.mark.parametrize("aggregation", ["mean", "add", "max"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_papers_in_pieces_are_embedded_as_by_the_encoder_at_once(
    graph, monkeypatch, layers, aggregation, piece
):
    monkeypatch.setattr(inference, "PIECE", piece)
    model = model_of(graph, num_layers=layers, aggr=aggregation)
    embedding_NH = embed_all(model, graph)
    assert (embedding_NH.shape, embedding_NH.dtype) == ((NUM_PAPERS, 6), torch.float32)
    torch.testing.assert_close(embedding_NH, at_once(model, graph))


@pytest.mark.parametrize("features", ["given", "ones"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_papers_without_features_are_embedded_from_random_ones_or_a_constant(
    monkeypatch, layers, features
):
    monkeypatch.setattr(inference, "PIECE", 7)
    bare = graph_of(NUM_PAPERS, features=False)
    model = model_of(bare, num_layers=layers, features=features, normalize=True)
    torch.testing.assert_close(embed_all(model, bare), at_once(model, bare))


def test_a_constant_input_tells_papers_apart_by_structure_alone(graph):
    embedding_NH = embed_all(model_of(graph, features="ones", aggr="add"), graph)
    assert torch.equal(embedding_NH[-1], embedding_NH[-2])
    assert not torch.isclose(embedding_NH[0], embedding_NH[-1]).all()


def test_embedding_drops_nothing_keeps_no_gradient_and_leaves_the_model_in_training(graph):
    model = model_of(graph, dropout=0.5)
    expected = embed_all(model, graph)
    model.train()
    found = embed_all(model, graph)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert model.training
    assert model.encoder.training


class Some:
    """One of several processes, the others of which never come to anything."""

    def __init__(self, rows):
        self._rows, self.exchanged = rows, []

    def rows(self, num_rows):
        return self._rows

    def empty(self, num_rows, width):
        return torch.full((num_rows, width), torch.nan)

    def all_gather_rows(self, x):
        self.exchanged.append(x.isnan().all(dim=1).logical_not().nonzero().flatten().tolist())
        x.nan_to_num_(0.0)


@pytest.mark.parametrize("rows", [range(0, 25), range(25, 60), range(30, 30)])
def test_a_process_computes_its_own_rows_of_every_layer_and_exchanges_each(
    graph, monkeypatch, rows
):
    monkeypatch.setattr(inference, "PIECE", 10)
    some = Some(rows)
    embed_all(model_of(graph), graph, some)
    assert some.exchanged == [list(rows)] * 2


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two ranks embedded together, and where they left it."""
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
        codes = [process.wait(PATIENCE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0, 0]
    return folder


@pytest.mark.parametrize("where", ["together", "apart"])
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_end_with_what_one_process_computes(two_ranks, monkeypatch, name, where):
    """Byte by byte, where the pieces of one process are those of the two."""
    monkeypatch.setattr(inference, "PIECE", PIECE)
    num_papers, changes = CASES[name]
    whole = graph_of(num_papers)
    expected = embed_all(model_of(whole, **changes), whole)
    first, second = (
        torch.from_numpy(np.load(two_ranks / f"{name}-{where}-{rank}.npy")) for rank in (0, 1)
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, expected) or num_papers % (2 * PIECE)


def test_no_shared_array_is_left_behind(two_ranks):
    assert not list(Path("/dev/shm").glob(f"citeflow-{os.getpid()}-*"))
