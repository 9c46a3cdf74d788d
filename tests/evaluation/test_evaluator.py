"""The report holds the figures that others compute from the same scores."""

import sys
import types
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from citeflow import config, files, stages
from citeflow.data.citation_graph import CitationGraph
from citeflow.errors import ConfigError, NotFoundError
from citeflow.evaluation import evaluator as evaluate
from citeflow.evaluation import inference, scoring, trained_model
from citeflow.evaluation.calibration import fit_platt
from citeflow.evaluation.evaluator import evaluate_model
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph, write_prepared

PARTS = ("valid", "test")


@pytest.fixture(scope="module")
def report(trained):
    return files.read_json(trained.report / "report.json")


@pytest.fixture(scope="module")
def curves(trained):
    return files.read_json(trained.report / "curves.json")


@pytest.fixture(scope="module")
def graph(trained):
    return PreparedGraph.open(trained.graph)


@pytest.fixture(scope="module")
def model(trained):
    return trained_model.load(trained.model)


@pytest.fixture(scope="module")
def score(graph, model):
    """Scores of both parts, the held-out citation in column 0."""
    structural, embedding_NH = (
        build_structural_features(graph, model.config.model),
        embed_all(model.predictor, graph),
    )
    return {
        part: score_held_out(model.predictor, embedding_NH, structural, getattr(graph, part))
        for part in PARTS
    }


@pytest.fixture(scope="module")
def probability(score, model):
    """Calibrated logits: above 0 is a citation."""
    return {
        part: model.calibration.slope * score[part] + model.calibration.offset for part in PARTS
    }


@pytest.fixture(scope="module")
def ogb():
    """OGB's own means; `import ogb` asks PyPI for a newer release in a thread, hence the stand-in for `outdated`."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ogb's own imports
        offline = types.ModuleType("outdated")
        offline.check_outdated = lambda package, version: (False, version)
        patch.setitem(sys.modules, "outdated", offline)
        from ogb.linkproppred import Evaluator

        evaluator = Evaluator(name="ogbl-citation2")

    def means(score):
        score = torch.from_numpy(score)
        lists = evaluator.eval({"y_pred_pos": score[:, 0], "y_pred_neg": score[:, 1:]})
        return {name.removesuffix("_list"): values.mean().item() for name, values in lists.items()}

    return means


def unweighted_links(graph):
    linked_NN = np.zeros((graph.num_papers, graph.num_papers))
    source_E, target_E = graph.references.edges()
    linked_NN[source_E, target_E] = linked_NN[target_E, source_E] = 1
    return linked_NN


def test_the_report_has_every_field_that_the_design_names(report):
    parts = {"valid", "test", "baselines", "train", "stages"}
    assert {"dataset", "num_papers", "num_citations", "config", "versions"} | parts <= set(report)
    metrics = {
        "mrr",
        "hits@1",
        "hits@3",
        "hits@10",
        "accuracy",
        "auc",
        "num_positives",
        "num_negatives",
    }
    assert set(report["valid"]) == set(report["test"]) == metrics
    baselines = {"common_neighbors", "adamic_adar", "resource_allocation", "popularity"}
    assert set(report["baselines"]) == baselines
    assert all(set(report["baselines"][name]) == {"mrr"} for name in baselines)
    figures = {
        "workers",
        "epochs",
        "steps",
        "positives",
        "seconds",
        "positives_per_s",
        "parameters",
    }
    assert set(report["train"]) == figures | {"cpu_cores", "peak_memory_bytes"}
    assert set(report["stages"]) == {"download", "preprocess", "train", "evaluate"}


def test_the_report_says_what_was_evaluated(report, graph, model, trained):
    held_out = [len(getattr(graph, part).source_P) for part in PARTS]
    assert report["num_papers"] == 400
    assert report["num_citations"] == len(graph.references.index_E) + sum(held_out)
    assert [report[part]["num_positives"] for part in PARTS] == held_out
    assert [report[part]["num_negatives"] for part in PARTS] == [50, 50]
    assert report["config"] == trained.config.to_dict()
    assert (report["train"], report["versions"]) == (
        model.details["train"],
        model.details["versions"],
    )


def test_the_report_names_its_inputs(trained, model, graph):
    inputs = files.verify(trained.report, evaluate.KIND).inputs
    assert inputs == {
        "TrainedModel": model.manifest.sha256,
        "PreparedGraph": graph.manifest.sha256,
    }


@pytest.mark.parametrize("part", PARTS)
def test_mrr_and_hits_equal_those_of_ogb_bit_for_bit(report, score, ogb, part):
    expected = ogb(score[part])
    assert {name: report[part][name] for name in expected} == expected


@pytest.mark.parametrize("part", PARTS)
def test_accuracy_is_the_share_of_right_answers_to_as_many_negatives(report, probability, part):
    right = [value > 0 for value in probability[part][:, 0]] + [
        value <= 0 for value in probability[part][:, 1]
    ]
    assert report[part]["accuracy"] == pytest.approx(sum(map(float, right)) / len(right), abs=1e-12)


@pytest.mark.parametrize("part", PARTS)
def test_auc_is_that_of_scikit_learn_over_ten_negatives(report, score, part):
    positive_P, negative_Q = score[part][:, 0], score[part][:, 1:11].ravel()
    label = [1] * len(positive_P) + [0] * len(negative_Q)
    assert report[part]["auc"] == pytest.approx(
        roc_auc_score(label, [*positive_P, *negative_Q]), abs=1e-12
    )


def test_the_calibration_finds_the_line_that_the_labels_were_drawn_from():
    rng = np.random.default_rng(0)
    logit = rng.normal(5, 3, 40_000)
    is_citation = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logit - 2)))
    found = fit_platt(torch.from_numpy(logit[is_citation]), torch.from_numpy(logit[~is_citation]))
    assert (found.slope, found.offset) == pytest.approx((0.5, -2), rel=0.05)


def test_baselines_are_those_computed_by_hand(report, graph, ogb):
    linked_NN = unweighted_links(graph)
    degree_N = linked_NN.sum(0)
    with np.errstate(divide="ignore"):
        by_log_N, by_degree_N = 1 / np.log(np.maximum(degree_N, 2)), 1 / np.maximum(degree_N, 1)
    pairs = {
        "common_neighbors": linked_NN @ linked_NN,
        "adamic_adar": (linked_NN * by_log_N) @ linked_NN,
        "resource_allocation": (linked_NN * by_degree_N) @ linked_NN,
        "popularity": np.tile(graph.citations.degree_N.astype(float), (graph.num_papers, 1)),
    }
    candidate_PK = np.concatenate([graph.test.target_P[:, None], graph.test.negative_PK], axis=1)
    for name, pair_NN in pairs.items():
        by_hand = ogb(
            pair_NN[graph.test.source_P[:, None], candidate_PK].round(5).astype(np.float32)
        )
        assert report["baselines"][name]["mrr"] == pytest.approx(by_hand["mrr"], rel=1e-3), name


def test_the_years_together_are_the_whole(report, curves, graph):
    years = curves["mrr_by_year"]
    assert sum(entry["num"] for entry in years) == report["test"]["num_positives"]
    mean = sum(entry["mrr"] * entry["num"] for entry in years) / report["test"]["num_positives"]
    assert mean == pytest.approx(report["test"]["mrr"], rel=1e-6)
    days = graph.day_N[graph.test.source_P].astype("datetime64[D]")
    assert {str(entry["year"]) for entry in years} == {str(day)[:4] for day in days}


def test_degrees_count_every_paper_and_every_training_citation(curves, graph):
    for pairs in curves["degrees"].values():
        assert sum(count for _, count in pairs) == graph.num_papers
        assert sum(degree * count for degree, count in pairs) == len(graph.references.index_E)


def test_the_roc_curve_climbs_from_corner_to_corner_and_holds_the_area(curves, probability):
    roc = curves["roc"]
    for name, ends in (("fpr", (0, 1)), ("tpr", (0, 1))):
        assert roc[name] == sorted(roc[name])
        assert (roc[name][0], roc[name][-1]) == ends
    assert roc["threshold"] == sorted(roc["threshold"], reverse=True)
    positive_P, negative_Q = probability["test"][:, 0], probability["test"][:, 1:11].ravel()
    area = roc_auc_score([1] * len(positive_P) + [0] * len(negative_Q), [*positive_P, *negative_Q])
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(area, abs=0.01)


def test_the_confusion_matrix_is_the_accuracy(report, curves):
    (tn, fp), (fn, tp) = curves["confusion"]
    assert tn + fp == fn + tp == report["test"]["num_positives"]
    assert (tn + tp) / (tn + fp + fn + tp) == report["test"]["accuracy"]


def test_rank_bins_hold_every_citation_once(report, curves):
    total, ranks = report["test"]["num_positives"], dict(curves["ranks"])
    assert sum(ranks.values()) == total
    assert ranks[1] / total == pytest.approx(report["test"]["hits@1"])
    assert sum(count for upper, count in ranks.items() if upper <= 10) / total == pytest.approx(
        report["test"]["hits@10"]
    )


def test_curves_of_the_training_are_those_of_the_model(curves, model):
    assert (curves["history"], curves["evaluations"]) == (model.history, model.evaluations)


def test_scores_do_not_depend_on_how_many_are_computed_at_once(graph, model, score, monkeypatch):
    structural = build_structural_features(graph, model.config.model)
    monkeypatch.setattr(scoring, "PAIRS", 300)
    monkeypatch.setattr(inference, "PIECE", 33)
    pieces = score_held_out(
        model.predictor, embed_all(model.predictor, graph), structural, graph.test
    )
    assert np.allclose(pieces, score["test"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("most", "world_size"), [(80, 1), (80, 3), (7, 2), (2, 4)])
def test_the_parts_of_all_ranks_are_an_even_sample_without_repetition(graph, most, world_size):
    parts = [
        scoring.sample_held_out(graph.valid, most=most, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    dealt = sorted(source for part in parts for source in part.source_P)
    assert len(dealt) == len(set(dealt)) == min(most, len(graph.valid.source_P))
    assert {graph.valid.source_P[0], graph.valid.source_P[-1]} <= set(dealt)


def test_evaluating_again_gives_the_same_report(trained, report, curves):
    again, same_curves, _ = evaluate_model(trained.model, graph_dir=trained.graph)
    assert {**again, "stages": report["stages"]} == report
    assert same_curves == curves


@pytest.mark.parametrize("threads", [1, 3])
def test_the_report_does_not_depend_on_the_threads(trained, report, curves, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(scoring, "PAIRS", 300)
    again, same_curves, _ = evaluate_model(trained.model, graph_dir=trained.graph)
    assert {part: again[part] for part in (*PARTS, "baselines")} == {
        part: report[part] for part in (*PARTS, "baselines")
    }
    assert same_curves["ranks"] == curves["ranks"]


def test_results_come_in_order_and_few_pieces_wait(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    taken = []
    pieces = ((taken.append(i) or i,) for i in range(50))
    for i, result in enumerate(evaluate._in_threads(lambda i: -i, pieces)):
        assert result == -i
        assert len(taken) - i <= 4
    assert len(taken) == 50


def test_scores_that_are_not_reported_are_not_kept(graph):
    def score(source_P, candidate_PK):
        return np.zeros(candidate_PK.shape, dtype=np.float32)

    kept = evaluate._score(score, graph.test, "test")
    assert kept.negative_PK.untyped_storage().nbytes() == 4 * len(graph.test.source_P) * 10


def test_a_model_of_another_graph_is_refused(trained, tmp_path):
    write_prepared(bare_graph(), tmp_path / "other", config=config.Config().data, inputs={})
    with pytest.raises(ConfigError, match="another graph") as caught:
        evaluate_model(trained.model, graph_dir=tmp_path / "other")
    assert caught.value.hint


def test_a_model_or_graph_that_is_not_there_is_told(trained, tmp_path):
    with pytest.raises(NotFoundError, match="TrainedModel"):
        evaluate_model(tmp_path, graph_dir=trained.graph)
    with pytest.raises(NotFoundError, match="PreparedGraph"):
        evaluate_model(trained.model, graph_dir=tmp_path)


def bare_graph():
    """Links alone."""
    rng = np.random.default_rng(0)
    edge_2E = np.sort(rng.integers(0, 120, (2, 900), dtype=np.int32), axis=0)[::-1]
    return CitationGraph(edge_2E=edge_2E, id_N=np.arange(120))


def test_a_graph_without_dates_and_features_gets_a_whole_report(tmp_path, train_alone):
    settings = config.load(
        overrides=[
            "data.eval_negatives=20",
            "model.hidden_channels=8",
            "train.epochs=0.5",
            "train.num_validations=1",
            "train.num_negatives=16",
        ]
    )
    write_prepared(
        bare_graph(), tmp_path / "graph", config=settings.data, inputs={}, dataset="bare"
    )
    model = train_alone(tmp_path / "graph", tmp_path / "run", tmp_path / "log", settings)
    stages.evaluate(model, graph=tmp_path / "graph", run_dir=tmp_path / "run")
    report, curves = (
        files.read_json(tmp_path / "run" / "report" / name)
        for name in ("report.json", "curves.json")
    )
    assert (report["facts"]["dates"], report["facts"]["num_features"]) == (False, 0)
    assert curves["mrr_by_year"] == []
    assert all(0 < report[part]["mrr"] <= 1 for part in PARTS)
    stages.publish(
        tmp_path / "run" / "report", model=model, log_dir=tmp_path / "log", out_dir=tmp_path / "out"
    )
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
