"""The report holds the figures that others compute from the same scores."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.metrics import roc_auc_score

from citeflow import config, files
from citeflow.data.citation_graph import CitationGraph
from citeflow.errors import ConfigError, NotFoundError
from citeflow.evaluation import chunks, evaluator, ranking
from citeflow.evaluation.baselines import NAMES
from citeflow.evaluation.evaluator import evaluate
from citeflow.graph.preparation import write_prepared
from citeflow.paths import RunPaths
from citeflow.report import Curves, Report
from citeflow.utils.usage import StageMeter

BASELINES = [name for name in NAMES if name != "bm25"]
"""Those of a graph whose papers have titles that share no word."""

SPLITS = ("valid", "test")
each_split = pytest.mark.parametrize("split", SPLITS)


@pytest.fixture(scope="module")
def report(trained):
    return Report.read(trained.report)


@pytest.fixture(scope="module")
def curves(trained):
    return Curves.read(trained.report)


@pytest.fixture(scope="module")
def calibrated(score, model):
    return {name: model.calibration(torch.from_numpy(score[name])) for name in SPLITS}


def test_report_json_keeps_its_keys(trained):
    content = files.read_json(trained.report / "report.json")
    assert list(content) == [
        "dataset", "num_papers", "num_citations", "facts", "config", "versions", "valid", "test",
        "protocols", "baselines", "train", "stages",
    ]  # fmt: skip
    scores = ["mrr", "hits@1", "hits@3", "hits@10", "accuracy", "auc"]
    for name in SPLITS:
        assert list(content[name]) == [*scores, "num_positives", "num_negatives"]
    assert list(content["baselines"]) == BASELINES
    assert list(content["protocols"]) == ["ogb", "hard", "all", "cold"]
    for protocol in content["protocols"].values():
        ranks = ["mrr", "recall@20", "recall@100", "median_rank"]
        sizes = ["num_sources", "of_sources", "num_candidates", "seconds", "baselines"]
        assert list(protocol) == [*ranks, *sizes]
        assert list(protocol["baselines"]) == BASELINES
        assert all(list(scores) == ranks for scores in protocol["baselines"].values())
    assert set(content["train"]) == {
        "workers", "epochs", "steps", "positives", "seconds", "positives_per_s", "parameters",
        "cpu_cores", "others_share", "peak_memory_bytes", "goodput", "wall_seconds", "losses",
    }  # fmt: skip
    assert list(content["stages"]) == ["download", "preprocess", "train", "evaluate"]
    assert all(cost["seconds"] > 0 for cost in content["stages"].values())


def test_report_says_what_was_evaluated(report, graph, model, trained):
    held_out = [len(getattr(graph, name).source_P) for name in SPLITS]
    assert report.num_papers == 400
    assert report.num_citations == len(graph.references.col_E) + sum(held_out)
    assert [report.valid.num_positives, report.test.num_positives] == held_out
    assert report.valid.num_negatives == report.test.num_negatives == 50
    assert report.config == trained.config
    assert report.facts == graph.facts.model_dump(mode="json")
    assert (report.train, report.versions) == (model.details.train, model.details.versions)
    manifest = files.verify(trained.report, evaluator.KIND)
    assert manifest.inputs == {
        "TrainedModel": model.manifest.sha256,
        "PreparedGraph": graph.manifest.sha256,
    }
    assert manifest.facts["test_mrr"] == report.test.mrr


@each_split
def test_mrr_and_hits_equal_those_of_ogb_bit_for_bit(report, score, ogb_means, split):
    score_PK = torch.from_numpy(score[split])
    expected = ogb_means(score_PK[:, 0], score_PK[:, 1:])
    found = getattr(report, split).model_dump(by_alias=True)
    assert {name: found[name] for name in ("mrr", "hits@1", "hits@3", "hits@10")} == {
        name: expected[name] for name in ("mrr", "hits@1", "hits@3", "hits@10")
    }


@each_split
def test_accuracy_and_auc_equal_those_of_sklearn(report, score, calibrated, split):
    right = [*(calibrated[split][:, 0] > 0), *(calibrated[split][:, 1] <= 0)]
    scores = getattr(report, split)
    assert scores.accuracy == pytest.approx(np.mean(right), abs=1e-12)
    positive_P = score[split][:, 0]
    negative_Q = score[split][:, 1:11].ravel()
    label = [1] * len(positive_P) + [0] * len(negative_Q)
    expected = roc_auc_score(label, [*positive_P, *negative_Q])
    assert scores.auc == pytest.approx(expected, abs=1e-12)


def test_baselines_equal_dense_matrices(report, graph, ogb_means):
    linked_NN = np.zeros((graph.num_papers, graph.num_papers))
    source_E, target_E = graph.references.edges()
    linked_NN[source_E, target_E] = 1
    linked_NN[target_E, source_E] = 1
    degree_N = linked_NN.sum(0)
    log_N = 1 / np.log(np.maximum(degree_N, 2))
    pairs = {
        "common_neighbors": linked_NN @ linked_NN,
        "adamic_adar": (linked_NN * log_N) @ linked_NN,
        "resource_allocation": (linked_NN / np.maximum(degree_N, 1)) @ linked_NN,
        "popularity": np.tile(graph.citations.degree_N.astype(float), (graph.num_papers, 1)),
        "recency": np.tile(graph.day_N.astype(float), (graph.num_papers, 1)),
        "cosine": sklearn.metrics.pairwise.cosine_similarity(graph.x_NF),
    }
    candidate_PK = np.concatenate([graph.test.target_P[:, None], graph.test.negative_PK], axis=1)
    for name, pair_NN in pairs.items():
        score_PK = pair_NN[graph.test.source_P[:, None], candidate_PK].round(5).astype(np.float32)
        score = torch.from_numpy(score_PK)
        expected = ogb_means(score[:, 0], score[:, 1:])["mrr"]
        assert report.baselines[name].mrr == pytest.approx(expected, rel=1e-3), name


def test_curves_agree_with_the_report(report, curves, graph, model, calibrated):
    total = report.test.num_positives
    assert sum(year.num for year in curves.mrr_by_year) == total
    mean = sum(year.mrr * year.num for year in curves.mrr_by_year) / total
    assert mean == pytest.approx(report.test.mrr, rel=1e-6)
    days = graph.day_N[graph.test.source_P].astype("datetime64[D]")
    assert {str(year.year) for year in curves.mrr_by_year} == {str(day)[:4] for day in days}
    for pairs in curves.degrees.values():
        assert sum(count for _, count in pairs) == graph.num_papers
        assert sum(degree * count for degree, count in pairs) == len(graph.references.col_E)
    (tn, fp), (fn, tp) = curves.confusion
    assert tn + fp == fn + tp == total
    assert (tn + tp) / (2 * total) == report.test.accuracy
    ranks = dict(curves.ranks)
    assert sum(ranks.values()) == total
    assert ranks[1] / total == pytest.approx(report.test.hits_at_1)
    top = sum(count for upper, count in ranks.items() if upper <= 10)
    assert top / total == pytest.approx(report.test.hits_at_10)
    assert (curves.history, curves.evaluations) == (model.history, model.evaluations)
    assert curves.resources == model.resources
    label = [1] * total + [0] * 10 * total
    scores = [*calibrated["test"][:, 0], *calibrated["test"][:, 1:11].flatten()]
    area = np.trapezoid(curves.roc.tpr, curves.roc.fpr)
    assert area == pytest.approx(roc_auc_score(label, scores), abs=0.01)


def test_rank_counts_have_a_bin_for_the_rest():
    counts = dict(evaluator._rank_counts(torch.tensor([1.0, 1.5, 1000.0, 1000.5, 5000.0])))
    found = {upper: count for upper, count in counts.items() if count}
    assert found == {1: 1, 2: 1, 1000: 1, evaluator.REST: 2}


def test_evaluate_repeats_whatever_the_threads(trained, report, curves, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(ranking, "PAIRS", 300)
    monkeypatch.setattr(chunks, "PAIRS", 300)
    run = RunPaths(trained.data_root, "again")
    folder = evaluate(trained.model, graph=trained.graph, run=run)
    assert folder == run.report
    again = Report.read(folder)
    for name in (*SPLITS, "baselines"):
        assert getattr(again, name) == getattr(report, name)
    for name, scores in again.protocols.items():
        assert scores == report.protocols[name].model_copy(update={"seconds": scores.seconds})
    assert Curves.read(folder) == curves


RAW = files.Manifest(kind="RawDataset", sha256="0" * 64, inputs={}, facts={}, files={})


def bare_graph():
    """Citations alone."""
    rng = np.random.default_rng(0)
    edge_2E = np.sort(rng.integers(0, 120, (2, 900), dtype=np.int32), axis=0)[::-1]
    return CitationGraph(edge_2E=edge_2E, id_N=np.arange(120))


BARE = "data.eval_negatives=20 model.hidden_channels=8 train.epochs=0.5 train.num_negatives=16"


def test_evaluate_refuses_other_inputs(trained, tmp_path):
    run = RunPaths(tmp_path, "run")
    data = config.Config().data
    write_prepared(bare_graph(), tmp_path / "other", config=data, raw=RAW, meter=StageMeter())
    with pytest.raises(ConfigError, match="another graph"):
        evaluate(trained.model, graph=tmp_path / "other", run=run)
    with pytest.raises(NotFoundError, match="TrainedModel"):
        evaluate(tmp_path, graph=trained.graph, run=run)
    with pytest.raises(NotFoundError, match="PreparedGraph"):
        evaluate(trained.model, graph=tmp_path, run=run)
    assert not run.report.exists()


def test_graph_without_dates_and_features_gets_a_report(tmp_path, train_alone):
    settings = config.load(overrides=[*BARE.split(), "train.num_validations=1"])
    graph = tmp_path / "graph"
    write_prepared(bare_graph(), graph, config=settings.data, raw=RAW, meter=StageMeter())
    run = RunPaths(tmp_path, "bare")
    folder = evaluate(train_alone(graph, run, settings), graph=graph, run=run)
    report = Report.read(folder)
    assert (report.facts["dates"], report.facts["num_features"]) == (False, 0)
    assert Curves.read(folder).mrr_by_year == []
    assert all(0 < scores.mrr <= 1 for scores in (report.valid, report.test))
