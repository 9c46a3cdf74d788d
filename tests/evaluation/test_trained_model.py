"""A TrainedModel reads back as the very model that was trained."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from citeflow import config, files
from citeflow.errors import ConfigError, CorruptError, NotFoundError
from citeflow.evaluation import trained_model
from citeflow.evaluation.calibration import calibrate, fitted_citations
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import PaperRows
from citeflow.report import Resources


def test_model_scores_as_its_training_measured(model, score):
    score_PK = score["valid"]
    better_P = (score_PK[:, 1:] > score_PK[:, :1]).sum(1)
    tied_P = (score_PK[:, 1:] == score_PK[:, :1]).sum(1)
    mrr = (1 / (1 + better_P + 0.5 * tied_P)).mean()
    assert mrr == pytest.approx(model.details.valid_mrr, rel=1e-6)
    assert model.details.valid_mrr == max(each["valid_mrr"] for each in model.evaluations)
    assert not model.model.training


def test_weights_read_back_unchanged(trained, model):
    stored = load_file(trained.model / "model.safetensors")
    weights = model.model.state_dict()
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in stored)


def test_model_of_other_structural_features_is_refused(model, graph):
    graph_without = dataclasses.replace(graph, similar=None)
    with pytest.raises(ConfigError, match="other structural features: reference_of_similar"):
        model.structural_features(graph_without)


def test_details_say_how_the_model_was_made(model, trained, graph, structural):
    details = model.details
    assert model.config == trained.config
    assert details.train.workers == 1
    assert details.train.parameters == sum(p.numel() for p in model.model.parameters())
    expected = details.train.positives / details.train.seconds
    assert details.train.positives_per_s == pytest.approx(expected)
    assert details.train.steps == model.evaluations[-1]["step"]
    assert details.shape.structural_features == structural.names
    assert {"citeflow", "torch", "torch-geometric", "numpy"} <= set(details.versions)
    facts = model.manifest.facts
    assert facts["valid_mrr"] == details.valid_mrr
    assert facts["steps"] == details.train.steps
    assert list(facts["stages"]) == ["download", "preprocess", "train"]
    assert model.manifest.inputs["PreparedGraph"] == graph.manifest.sha256


def test_calibration_is_that_of_the_best_weights(model, graph, structural):
    rows = PaperRows(embed_all(model.model, graph), structural)
    citations = fitted_citations(graph.valid)
    expected = calibrate(model.model, rows, citations, loss="info_nce")
    assert model.calibration == expected


@pytest.mark.parametrize(
    ("overrides", "workers", "is_same"),
    [
        (["data.seed=3", "synthetic.num_papers=500"], 2, True),  # seen in the graph's digest
        (["model.hidden_channels=8"], 2, False),
        (["train.seed=1"], 2, False),
        ([], 3, False),
    ],
)
def test_inputs_are_model_and_train_settings_and_workers(graph, overrides, workers, is_same):
    expected = trained_model.inputs_of(graph, config.Config(), 2)
    found = trained_model.inputs_of(graph, config.load(overrides=overrides), workers)
    assert (found == expected) is is_same


def test_load_names_what_is_missing_or_damaged(trained, tmp_path):
    with pytest.raises(NotFoundError, match="no TrainedModel here"):
        trained_model.load(tmp_path)
    with pytest.raises(CorruptError, match="PreparedGraph"):
        trained_model.load(trained.graph)
    folder = tmp_path / "model"
    files.copy_directory(trained.model, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        trained_model.load(folder)


@pytest.fixture
def rewrite(trained, tmp_path):
    """Copy the model with some files changed and a manifest that fits them."""

    def rewrite(**contents):
        with files.new_directory(tmp_path / "model") as work:
            for path in trained.model.iterdir():
                if path.name not in ("manifest.json", "resources.json"):
                    files.copy_file(path, work / path.name)
            for name, content in contents.items():
                files.write_json(work / f"{name}.json", content)
            files.write_manifest(work, trained_model.KIND, inputs={}, facts={})
        return tmp_path / "model"

    return rewrite


def test_load_takes_a_model_without_resources(rewrite, model):
    assert trained_model.load(rewrite()).resources == Resources()
    assert model.resources.ranks


def test_load_names_the_bad_field(rewrite, trained):
    details = files.read_json(trained.model / "model.json")
    details["shape"]["num_features"] = "many"
    with pytest.raises(CorruptError, match=r"shape\.num_features"):
        trained_model.load(rewrite(model=details))
    details["shape"]["num_features"] = 3
    with pytest.raises(CorruptError, match="not a model of citeflow"):
        trained_model.load(rewrite(model=details))
