import math
from typing import Any

import numpy as np
import pytest

from citeflow.reporting.page import render_page


@pytest.fixture
def report() -> dict[str, Any]:
    """What a run on an arXiv-sized graph reports."""
    return sample_report()


@pytest.fixture
def curves() -> dict[str, Any]:
    """The curves that go with it."""
    return sample_curves()


@pytest.fixture(scope="session")
def page() -> str:
    """The page of that run."""
    return render_page(sample_report(), sample_curves())


def sample_report() -> dict[str, Any]:
    return {
        "dataset": "hepth",
        "num_papers": 29_557,
        "num_citations": 351_524,
        "facts": {
            "dataset": "hepth",
            "split": "date",
            "num_papers": 29_557,
            "num_citations": 351_524,
            "num_training_citations": 348_568,
            "num_valid": 1_478,
            "num_test": 1_478,
            "num_negatives": 1_000,
            "num_features": 128,
            "dates": True,
            "self_citations": 39,
            "duplicates": 1_244,
            "unknown": 0,
            "later_citations": 7_213,
        },
        "config": {
            "data": {"holdout": 0.05, "seed": 0, "unknown": "error"},
            "model": {
                "num_layers": 2,
                "hidden_channels": 128,
                "normalize": False,
                "predictor": "structural",
            },
            "train": {
                "epochs": 10.0,
                "minutes": 5.0,
                "papers": 10_000,
                "loss": "info_nce",
                "lr": 0.003,
            },
        },
        "versions": {"citeflow": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "valid": _scores(0.7634) | {"num_positives": 1_478, "num_negatives": 1_000},
        "test": _scores(0.7518) | {"num_positives": 1_478, "num_negatives": 1_000},
        "baselines": {
            "common_neighbors": {"mrr": 0.6302},
            "adamic_adar": {"mrr": 0.6694},
            "resource_allocation": {"mrr": 0.6811},
            "popularity": {"mrr": 0.0946},
        },
        "train": {
            "workers": 2,
            "epochs": 16.4,
            "steps": 1_396,
            "positives": 5_716_515,
            "seconds": 300.4,
            "positives_per_s": 19_030.0,
            "parameters": 66_310,
            "cpu_cores": 1.87,
            "peak_memory_bytes": 3_120_000_000,
        },
        "stages": {
            "download": _cost(0.31, 181_000_000, 0.9, received_bytes=41_000_000.0),
            "preprocess": _cost(4.8, 642_000_000, 1.2, received_bytes=12_000.0),
            "train": _cost(309.2, 1_913_000_000, 1.87, received_bytes=230_000.0),
            "evaluate": _cost(21.7, 1_220_000_000, 1.7, received_bytes=0.0),
        },
    }


def sample_curves() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "history": [_step(step, draw) for step in range(5, 1_397, 5)],
        "evaluations": [_evaluation(step) for step in range(139, 1_397, 139)],
        "roc": {
            "fpr": [0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0],
            "tpr": [0.0, 0.72, 0.9, 0.95, 0.98, 0.995, 1.0],
        },
        "confusion": {"matrix": [[1_391, 87], [118, 1_360]]},
        "degrees": {"references": _degrees(2.1, 120), "citations": _degrees(1.7, 2_400)},
        "mrr_by_year": [
            {"year": 1992 + i, "mrr": 0.66 + 0.01 * i, "num": 20 + 25 * i} for i in range(12)
        ],
        "ranks": [[1, 942], [3, 208], [10, 172], [30, 88], [100, 49], [300, 14], [1_001, 5]],
        "resources": {
            "seconds": [309.2 * (moment + 1) / 150 for moment in range(150)],
            "ranks": [_resources(rank, np.random.default_rng(rank)) for rank in range(2)],
        },
    }


def _cost(seconds: float, peak: float, cores: float, **more: float) -> dict[str, float]:
    disk = {"read_bytes": peak / 20, "written_bytes": peak / 4}
    return {
        "seconds": seconds,
        "peak_rss_bytes": peak,
        "cpu_seconds": cores * seconds,
        **disk,
        **more,
    }


def _resources(rank: int, draw: np.random.Generator) -> dict[str, Any]:
    working = 0.93 - 0.03 * rank + 0.02 * draw.standard_normal(150)
    memory = 2**30 * (1.1 + 0.2 * rank + 0.3 * (np.arange(150) % 15 < 2))
    return {"rank": rank, "cpu_cores": [0.4, 0.7, *working[2:]], "memory_bytes": memory.tolist()}


def _scores(mrr: float) -> dict[str, float]:
    return {
        "mrr": mrr,
        "hits@1": mrr - 0.115,
        "hits@3": mrr + 0.057,
        "hits@10": mrr + 0.163,
        "accuracy": 0.9306,
        "auc": 0.9779,
    }


def _step(step: int, draw: np.random.Generator) -> dict[str, float]:
    done = step / 1_396
    return {
        "step": step,
        "epoch": 16.4 * done,
        "seconds": 300.4 * done,
        "loss": 2.9 + 2.6 * math.exp(-6 * done) + 0.08 * draw.standard_normal(),
        "lr": 0.0015 * (1 + math.cos(math.pi * done)),
        "positives_per_s": 19_000 + 900 * draw.standard_normal(),
        "wall_time": 1_780_000_000.0 + 300.4 * done,
    }


def _evaluation(step: int) -> dict[str, float]:
    done = step / 1_396
    mrr = 0.7634 - 0.11 * math.exp(-5 * done)
    place = {
        "step": step,
        "epoch": 16.4 * done,
        "seconds": 300.4 * done,
        "wall_time": 1_780_000_000.0 + 300.4 * done,
    }
    return place | {"valid_mrr": mrr}


def _degrees(power: float, largest: int) -> list[list[int]]:
    degree = np.unique(np.geomspace(1, largest, 60).astype(int))
    papers = np.maximum(1, 14_000 * degree**-power).astype(int)
    return [[0, 1_520], *([int(k), int(num)] for k, num in zip(degree, papers, strict=True))]
