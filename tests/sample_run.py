"""A run on an arXiv-sized graph: its report and its curves, for tests that need whole ones."""

import math
from typing import Any

import numpy as np

from citeflow import config
from citeflow.report import Curves, Report

STEPS = 1_396
SECONDS = 300.4


def sample_report() -> Report:
    sizes = {"num_positives": 1_478, "num_negatives": 1_000}
    settings = config.load(overrides=["train.lr=0.003", "model.predictor=structural"])
    return Report.from_json(
        {
            "dataset": "hepth",
            "num_papers": 29_557,
            "num_citations": 351_524,
            "facts": {
                "split": "date",
                "num_training_citations": 348_568,
                "num_valid": 1_478,
                "num_test": 1_478,
                "num_negatives": 1_000,
                "num_features": 128,
                "self_citations": 39,
                "duplicates": 1_244,
                "unknown": 0,
                "later_citations": 7_213,
            },
            "config": settings.to_dict(),
            "versions": {"citeflow": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
            "valid": _scores(0.7634) | sizes,
            "test": _scores(0.7518) | sizes,
            "protocols": {
                "ogb": _protocol(0.7518, 0.97, 1.0, 1.0, 1_000),
                "hard": _protocol(0.3531, 0.69, 0.9, 5.0, 500),
                "all": _protocol(0.3556, 0.69, 0.88, 6.0, 28_900),
                "cold": _protocol(0.0409, 0.09, 0.165, 4_125.0, 28_900)
                | {
                    "num_sources": 500,
                    "ci": {
                        "mrr": (0.0312, 0.0512),
                        "recall@20": (0.07, 0.12),
                        "recall@100": (0.13, 0.2),
                    },
                },
            },
            "baselines": {
                "common_neighbors": {"mrr": 0.6302},
                "adamic_adar": {"mrr": 0.6694},
                "resource_allocation": {"mrr": 0.6811},
                "popularity": {"mrr": 0.0946},
                "recency": {"mrr": 0.0102},
                "cosine": {"mrr": 0.1412},
            },
            "train": {
                "workers": 2,
                "epochs": 16.4,
                "steps": STEPS,
                "positives": 5_716_515,
                "seconds": SECONDS,
                "positives_per_s": 19_030.0,
                "parameters": 66_310,
                "cpu_cores": 1.87,
                "peak_memory_bytes": 3_120_000_000,
                "goodput": 0.864,
                "wall_seconds": 334.7,
                "losses": {
                    "start": 8.2,
                    "restart": 9.6,
                    "redone": 4.3,
                    "checkpoint": 1.9,
                    "validation": 21.1,
                    "waiting": 0.4,
                },
            },
            "stages": {
                "download": _cost(0.31, 181_000_000, 0.9, 41_000_000.0),
                "preprocess": _cost(4.8, 642_000_000, 1.2, 12_000.0),
                "train": _cost(309.2, 1_913_000_000, 1.87, 230_000.0),
                "evaluate": _cost(21.7, 1_220_000_000, 1.7, 0.0),
            },
        }
    )


def sample_curves() -> Curves:
    draw = np.random.default_rng(0)
    moments = [309.2 * (moment + 1) / 150 for moment in range(150)]
    return Curves.model_validate(
        {
            "history": [_entry(step, draw) for step in range(5, STEPS + 1, 5)],
            "evaluations": [
                _position(step)
                | {
                    "valid_mrr": 0.7634 - 0.11 * math.exp(-5 * step / STEPS),
                    "valid_accuracy": 0.93 - 0.5 * math.exp(-5 * step / STEPS),
                    "valid_hard_mrr": 0.3531 - 0.2 * math.exp(-5 * step / STEPS),
                }
                for step in range(139, STEPS + 1, 139)
            ],
            "roc": {
                "fpr": [0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0],
                "tpr": [0.0, 0.72, 0.9, 0.95, 0.98, 0.995, 1.0],
                "threshold": [1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0],
            },
            "confusion": [[1_391, 87], [118, 1_360]],
            "degrees": {"references": _degrees(2.1, 120), "citations": _degrees(1.7, 2_400)},
            "mrr_by_year": [
                {"year": 1992 + i, "mrr": 0.66 + 0.01 * i, "num": 20 + 25 * i} for i in range(12)
            ],
            "ranks": [[1, 942], [3, 208], [10, 172], [30, 88], [100, 49], [300, 14], [1_001, 5]],
            "resources": {"seconds": moments, "ranks": [_resources(rank) for rank in range(2)]},
        }
    )


def _scores(mrr: float) -> dict[str, float]:
    hits = {"hits@1": mrr - 0.115, "hits@3": mrr + 0.057, "hits@10": mrr + 0.163}
    return {"mrr": mrr, **hits, "accuracy": 0.9306, "auc": 0.9779}


def _protocol(mrr: float, at_20: float, at_100: float, median: float, num: int) -> dict[str, Any]:
    def figures(factor: float) -> dict[str, float]:
        return {
            "mrr": factor * mrr,
            "recall@20": factor * at_20,
            "recall@100": factor * at_100,
            "median_rank": median / factor,
        }

    shares = {"common_neighbors": 0.84, "adamic_adar": 0.89, "resource_allocation": 0.91}
    alone = {"popularity": 0.13, "recency": 0.02, "cosine": 0.2 if median < 1000 else 1.6}
    return figures(1.0) | {
        "num_sources": 1_478,
        "of_sources": 1_478,
        "num_candidates": num,
        "seconds": num / 500,
        "baselines": {name: figures(share) for name, share in (shares | alone).items()},
    }


def _cost(seconds: float, peak: float, cores: float, received: float) -> dict[str, float]:
    return {
        "seconds": seconds,
        "peak_rss_bytes": peak,
        "cpu_seconds": cores * seconds,
        "read_bytes": peak / 20,
        "written_bytes": peak / 4,
        "received_bytes": received,
    }


def _position(step: int) -> dict[str, float]:
    seconds = SECONDS * step / STEPS
    return {
        "step": step,
        "epoch": 16.4 * step / STEPS,
        "seconds": seconds,
        "wall_time": 1_780_000_000.0 + seconds,
    }


def _entry(step: int, draw: np.random.Generator) -> dict[str, float]:
    done = step / STEPS
    return _position(step) | {
        "loss": 2.9 + 2.6 * math.exp(-6 * done) + 0.08 * draw.standard_normal(),
        "lr": 0.0015 * (1 + math.cos(math.pi * done)),
        "positives_per_s": 19_000 + 900 * draw.standard_normal(),
    }


def _resources(rank: int) -> dict[str, object]:
    working = 0.93 - 0.03 * rank + 0.02 * np.random.default_rng(rank).standard_normal(150)
    memory = 2**30 * (1.1 + 0.2 * rank + 0.3 * (np.arange(150) % 15 < 2))
    return {"rank": rank, "cpu_cores": [0.4, 0.7, *working[2:]], "memory_bytes": memory.tolist()}


def _degrees(power: float, largest: int) -> list[list[int]]:
    degree = np.unique(np.geomspace(1, largest, 60).astype(int))
    papers = np.maximum(1, 14_000 * degree**-power).astype(int)
    return [[0, 1_520], *([int(k), int(num)] for k, num in zip(degree, papers, strict=True))]
