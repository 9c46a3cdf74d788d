"""The TrainedModel reads back as the very model that was trained."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from citeflow import config, files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.evaluation import trained_model
from citeflow.evaluation.calibration import Calibration, calibrate
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.training import checkpoint, worker


@pytest.fixture(scope="module")
def graph(prepared):
    return PreparedGraph.open(prepared.graph)


@pytest.fixture
def model(trained):
    return trained_model.load(trained.model)


def test_the_model_holds_the_best_weights_of_its_training(trained, graph):
    untrained = worker.new_model(
        graph, build_structural_features(graph, trained.config.model), trained.config
    )
    optimizer = torch.optim.Adam(untrained.parameters())
    inputs = trained_model.inputs_of(graph, trained.config, 1)
    state = checkpoint.read(trained.run_dir / "checkpoints", inputs)
    _, best = checkpoint.restore(state, model=untrained, optimizer=optimizer)
    stored = load_file(trained.model / "model.safetensors")
    assert stored.keys() == best.keys()
    assert all(torch.equal(stored[name], best[name]) for name in best)


def test_a_model_that_is_read_back_scores_as_its_training_measured(model, graph):
    structural = build_structural_features(graph, model.config.model)
    score = torch.from_numpy(
        score_held_out(model.predictor, embed_all(model.predictor, graph), structural, graph.valid)
    )
    rank_P = 1 + (score[:, 1:] > score[:, :1]).sum(1) + 0.5 * (score[:, 1:] == score[:, :1]).sum(1)
    assert (1 / rank_P).mean().item() == pytest.approx(model.manifest.facts["valid_mrr"], rel=1e-6)
    assert not model.predictor.training


def test_a_model_says_how_it_was_made(model, trained, graph):
    told = model.details
    assert model.config == trained.config
    assert told["train"]["workers"] == 1
    assert told["train"]["parameters"] == sum(
        parameter.numel() for parameter in model.predictor.parameters()
    )
    assert told["train"]["positives_per_s"] == pytest.approx(
        told["train"]["positives"] / told["train"]["seconds"]
    )
    assert told["train"]["steps"] == model.evaluations[-1]["step"]
    assert told["shape"]["evidence"] == list(
        build_structural_features(graph, trained.config.model).names
    )
    assert {"citeflow", "torch", "torch-geometric", "numpy"} <= set(told["versions"])
    assert model.manifest.facts["valid_mrr"] == told["valid_mrr"]
    assert model.manifest.inputs["PreparedGraph"] == graph.manifest.sha256


def test_the_curves_come_back_entry_by_entry(model):
    for entries, keys in (
        (model.history, {"loss", "lr", "positives_per_s"}),
        (model.evaluations, {"valid_mrr"}),
    ):
        assert entries
        assert all(
            set(entry) == {"step", "epoch", "seconds", "wall_time"} | keys for entry in entries
        )


def test_the_calibration_is_that_of_the_best_weights(model, graph):
    structural = build_structural_features(graph, model.config.model)
    embedding_NH = embed_all(model.predictor, graph)
    assert model.calibration == calibrate(
        model.predictor, embedding_NH, structural, graph.valid, loss="info_nce"
    )
    assert model.calibration.slope > 0
    assert (
        calibrate(model.predictor, embedding_NH, structural, graph.valid, loss="bce")
        == Calibration()
    )


def test_a_model_is_tensors_and_json_and_nothing_that_runs(trained):
    names = {path.name for path in trained.model.iterdir()}
    told = {"model.json", "history.jsonl", "evaluations.jsonl", "resources.json", "manifest.json"}
    assert names == {"model.safetensors", *told}


@pytest.mark.parametrize(
    ("overrides", "workers", "is_same"),
    [
        ([], 2, True),
        (["data.seed=3", "synthetic.num_papers=500"], 2, True),
        (["model.hidden_channels=8"], 2, False),
        (["train.seed=1"], 2, False),
        ([], 3, False),
    ],
)
def test_a_model_depends_on_model_and_training_settings_and_workers(
    graph, overrides, workers, is_same
):
    """The settings of the data have their say in the digest of the graph."""
    first = trained_model.inputs_of(graph, config.Config(), 2)
    assert (
        trained_model.inputs_of(graph, config.load(overrides=overrides), workers) == first
    ) is is_same


def test_a_damaged_or_missing_model_is_told(trained, tmp_path):
    with pytest.raises(NotFoundError, match="no TrainedModel here"):
        trained_model.load(tmp_path)
    shutil.copytree(trained.model, tmp_path / "model")
    content = bytearray((tmp_path / "model" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        trained_model.load(tmp_path / "model")


def test_another_noun_is_no_model(trained):
    with pytest.raises(CorruptError, match="PreparedGraph"):
        trained_model.load(trained.graph)
    assert files.read_manifest(trained.model, trained_model.KIND).kind == "TrainedModel"


def test_a_model_from_before_resources_were_sampled_is_read(trained, tmp_path):
    with files.new_directory(tmp_path / "model") as work:
        for name in ("model.safetensors", "model.json", "history.jsonl", "evaluations.jsonl"):
            files.copy_file(trained.model / name, work / name)
        files.write_manifest(work, trained_model.KIND, inputs={}, facts={})
    assert trained_model.load(tmp_path / "model").resources == {}
    assert trained_model.load(trained.model).resources["ranks"]
