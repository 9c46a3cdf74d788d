"""OGB's evaluator, and the graph and model of the session's small training."""

import sys
import types
import warnings

import pytest

from citeflow.evaluation import trained_model
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import PaperRows, build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph


@pytest.fixture(scope="session")
def ogb_means():
    """Means of OGB's own metrics.

    `import ogb` asks PyPI for a newer release in a thread, hence the stand-in for `outdated`.
    """
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ogb's own imports
        offline = types.ModuleType("outdated")
        offline.check_outdated = lambda package, version: (False, version)
        patch.setitem(sys.modules, "outdated", offline)
        from ogb.linkproppred import Evaluator

        evaluator = Evaluator(name="ogbl-citation2")

    def means(positive_P, negative_PK):
        lists = evaluator.eval({"y_pred_pos": positive_P, "y_pred_neg": negative_PK})
        return {name.removesuffix("_list"): values.mean().item() for name, values in lists.items()}

    return means


@pytest.fixture(scope="session")
def graph(trained):
    return PreparedGraph.open(trained.graph)


@pytest.fixture(scope="session")
def model(trained):
    return trained_model.load(trained.model)


@pytest.fixture(scope="session")
def structural(graph, model):
    return build_structural_features(graph, model.config.model)


@pytest.fixture(scope="session")
def score(graph, model, structural):
    """Scores of both splits, the held-out citation in column 0."""
    embedding_NH = embed_all(model.model, graph)
    return {
        name: score_held_out(model.model, PaperRows(embedding_NH, structural), getattr(graph, name))
        for name in ("valid", "test")
    }
