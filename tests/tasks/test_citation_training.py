"""The citation task in training: what it validates, learns and depends on."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from ranked_by_hand import hard_mrr

from citeflow import config
from citeflow.config import RecoveryConfig
from citeflow.errors import ConfigError, TrainingError
from citeflow.evaluation.calibration import fit_platt
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.metrics import mrr_and_hits, rank_positives
from citeflow.evaluation.scoring import PaperRows, build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.tensors import RANDOM_FEATURES
from citeflow.paths import RunPaths
from citeflow.tasks import citation_training
from citeflow.tasks.citation_training import LinkPrediction, OpenCitationTask, build_model
from citeflow.training import lease
from citeflow.training.checkpoint import SavedState
from citeflow.training.distributed import Group
from citeflow.training.preemption import PreemptionHandler
from citeflow.training.trainer import ResumePoint, Trainer

QUICK = ["train.epochs=0.25", "train.num_validations=2", "model.dropout=0.3"]


@pytest.fixture(scope="module")
def graph(prepared):
    return PreparedGraph.open(prepared.graph)


@pytest.fixture
def fit(prepared, graph, group, tmp_path, signal_handlers):
    """Trains; returns the trainer."""
    numbers = itertools.count()

    def train(*overrides):
        settings = config.load(overrides=[*prepared.settings, *QUICK, *overrides])
        run = RunPaths(tmp_path, f"run-{next(numbers)}")
        start = ResumePoint(
            lease=lease.acquire(run.leases, launch="", step=0), inputs={}, state=SavedState()
        )
        trainer = Trainer(
            OpenCitationTask(graph, settings),
            run,
            start,
            group=group,
            preemption=PreemptionHandler(),
            checkpoint_steps=100,
        )
        trainer.fit()
        return trainer

    return train


def test_validation_is_the_mrr_of_all_held_out_citations(fit, graph):
    trainer = fit("train.num_validations=1")
    task = trainer.trainable
    rows = PaperRows(embed_all(task.model, graph), task.structural)
    score = torch.from_numpy(score_held_out(task.model, rows, graph.valid))
    expected = mrr_and_hits(rank_positives(score[:, 0], score[:, 1:]))["mrr"]
    found = trainer.progress.evaluations[-1]
    assert found["valid_mrr"] == pytest.approx(expected, rel=1e-6)
    logits = fit_platt(score[:, 0], score[:, 1])(score[:, :2])
    right = (logits > 0) == torch.tensor([True, False])
    assert found["valid_accuracy"] == pytest.approx(right.double().mean().item())


def test_validation_ranks_a_sample_among_hard_candidates(fit, graph, monkeypatch):
    trainer = fit("train.num_validations=1")
    expected = hard_mrr(trainer.trainable.model, graph)
    assert trainer.progress.evaluations[-1]["valid_hard_mrr"] == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(citation_training, "MAX_HARD_SOURCES", 3)
    few = LinkPrediction(graph, trainer.trainable.config, trainer.group)
    few.model.load_state_dict(trainer.model.state_dict())
    figures, num = few.validate()
    reciprocals = figures["valid_hard_mrr"] / num * 3
    assert 0 < reciprocals <= 3
    assert figures["valid_mrr"] / num == pytest.approx(
        trainer.progress.evaluations[-1]["valid_mrr"]
    )


def test_only_weights_that_were_not_just_validated_are_embedded_to_finish(fit, monkeypatch):
    trainer = fit("train.num_validations=1")
    task, calls = trainer.trainable, []
    monkeypatch.setattr(
        citation_training, "embed_all", lambda *given: calls.append(given) or embed_all(*given)
    )
    trainer.load_best()
    task.finish()
    assert not calls
    from_validation = task.calibration
    with torch.no_grad():
        task.model.encoder.mean_F += 1  # a buffer is part of what is compared
    task.finish()
    assert len(calls) == 1
    assert task.calibration != from_validation
    trainer.load_best()
    task._validated = None  # as after a restart
    task.finish()
    assert len(calls) == 2
    assert task.calibration == from_validation


def test_a_batch_has_the_kernel_read_the_next_one(fit, graph, monkeypatch):
    task, ranges = fit("train.nodes_per_batch=100").trainable, []
    monkeypatch.setattr(citation_training, "read_ahead", lambda *given: ranges.append(given))
    task.make_batch(4)
    first_R, end_R = task._sampler.partition(5, 0).bounds_R2.T
    arrays = [graph.x_NF, graph.neighbors.col_E, graph.references.col_E]
    assert [id(array) for array, *_ in ranges] == [id(array) for array in arrays]
    assert [bound.tolist() for bound in ranges[0][1:]] == [first_R.tolist(), end_R.tolist()]
    rowptr_N1 = graph.neighbors.rowptr_N1
    assert [bound.tolist() for bound in ranges[1][1:]] == [
        rowptr_N1[first_R].tolist(),
        rowptr_N1[end_R].tolist(),
    ]
    ranges.clear()
    fit("model.features=ones").trainable.make_batch(0)
    assert all(array is not graph.x_NF for array, *_ in ranges)


def test_validation_of_weights_that_burst_is_an_error(fit):
    with pytest.raises(TrainingError, match="scores are not finite: nan at step 1") as caught:
        fit("train.lr=1e18", "train.max_grad_norm=0", "train.num_validations=4")
    assert "train.lr" in caught.value.hint


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.predictor=dot", "train.loss=bce"],
        ["model.predictor=mlp", "model.num_layers=0"],
        ["model.structural_hops=0", "model.aggr=add", "model.normalize=yes"],
        ["model.structural_hops=2", "train.loss=bce"],
        ["model.features=ones", "model.num_layers=1", "model.aggr=max"],
        ["train.max_grad_norm=0", "train.nodes_per_batch=1000000", "train.epochs=1"],
    ],
)
def test_every_kind_of_model_learns(fit, graph, overrides):
    trainer = fit(*overrides)
    task = trainer.trainable
    untrained = build_model(graph, task.structural, task.config)
    assert 0 < trainer.progress.best_score <= 1
    assert any(
        not torch.equal(before, after)
        for before, after in zip(untrained.parameters(), task.model.parameters(), strict=True)
    )


def test_partitions_without_a_citation_are_steps(fit):
    trainer = fit("train.nodes_per_batch=2", "train.epochs=0.01")
    assert trainer.progress.step == 8
    assert trainer.progress.samples < 8
    assert all(math.isfinite(record["loss"]) for record in trainer.progress.history)


def test_build_model_scales_the_features(prepared, graph):
    structural = build_structural_features(graph, prepared.config.model)
    model = build_model(graph, structural, prepared.config)
    scaled = model.encoder.transform_features(torch.from_numpy(np.array(graph.x_NF)))
    assert torch.allclose(scaled.mean(0), torch.zeros(128), atol=1e-5)
    assert torch.allclose(scaled.std(0, correction=0), torch.ones(128), atol=1e-4)


@pytest.mark.parametrize(("features", "width"), [("given", RANDOM_FEATURES), ("ones", 1)])
def test_build_model_for_a_graph_without_features(prepared, graph, features, width):
    bare = dataclasses.replace(graph, x_NF=None)
    settings = config.load(overrides=[*prepared.settings, f"model.features={features}"])
    structural = build_structural_features(bare, settings.model)
    assert len(build_model(bare, structural, settings).encoder.mean_F) == width


def test_begin_refuses_a_maximum_on_a_gpu(graph, prepared):
    settings = config.load(overrides=[*prepared.settings, "model.aggr=max"])
    with pytest.raises(ConfigError, match=r"model\.aggr: max"):
        OpenCitationTask(graph, settings).begin(Group(0, 1, torch.device("cuda")))


@pytest.mark.fault("F13")
def test_inputs_do_not_depend_on_the_recovery(prepared, graph):
    def inputs(*overrides, workers=2):
        settings = config.load(overrides=[*prepared.settings, *overrides])
        return OpenCitationTask(graph, settings).inputs(workers)

    recovery = [f"recovery.{name}=7" for name in RecoveryConfig.model_fields]
    assert len(recovery) >= 2
    assert inputs(*recovery) == inputs()
    assert inputs("train.lr=0.5") != inputs() != inputs("model.hidden_channels=8")
    assert inputs(workers=3) != inputs()


def test_make_batch_follows_from_step_and_rank(prepared, graph):
    ranks = [
        LinkPrediction(graph, prepared.config, Group(rank, 2, torch.device("cpu")))
        for rank in (0, 0, 1)
    ]
    first, same, other = (rank.make_batch(3).negative_K for rank in ranks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_board_preset_stays_within_the_leaderboards_million_weights(graph):
    settings = config.load(preset="board")
    structural = build_structural_features(graph, settings.model)
    assert graph.x_NF.shape[1] == 128
    assert len(structural.names) == 19
    weights = build_model(graph, structural, settings).parameters()
    assert 50_000 < sum(weight.numel() for weight in weights) < 1_000_000
