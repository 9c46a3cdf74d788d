"""The estimate of memory, against peaks that were measured."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from citeflow import config
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.kubernetes.job_spec import JobSpec, quantity
from citeflow.tasks.citation_memory import MIB, WORKER, GraphShape, estimate, measure

pytestmark = pytest.mark.fault("F14")

REPOSITORY = Path(__file__).parents[2]

ROWS = [
    json.loads(line)
    for line in (REPOSITORY / "benchmarks" / "results" / "forecast.jsonl").read_text().splitlines()
]
"""Graph with the sizes that `measure` finds, workers, settings, and the most MiB that all processes
had together while they trained for some steps, validated and calibrated: benchmarks/forecast.py."""

SHAPES = {row["graph"]: GraphShape(**row["shape"]) for row in ROWS}


def estimated(shape, settings, workers):
    return estimate(shape, config=config.load(overrides=settings.split()), workers=workers)


def estimated_of(row):
    return estimated(SHAPES[row["graph"]], row["settings"], row["workers"])


def test_all_kinds_of_graphs_were_measured():
    kinds = {"small", "demo", "text", "middle", "dense", "large", "full", "hubs", "hepth"}
    assert {row["graph"] for row in ROWS} == kinds
    settings = " ".join(row["settings"] for row in ROWS)
    assert all(f"model.predictor={name}" in settings for name in ("dot", "mlp"))


@pytest.mark.parametrize("row", ROWS)
def test_estimate_is_within_a_fifth_of_a_measured_peak(row):
    ratio = estimated_of(row) / MIB / row["peak"]
    assert 0.8 <= ratio <= 1.2


@pytest.mark.parametrize("row", ROWS)
def test_pods_get_what_was_measured_and_at_most_half_more(row):
    spec = JobSpec().sized(estimated_of(row))
    assert row["peak"] <= float(quantity(spec.memory)) / MIB <= 1.5 * row["peak"] + 64


def test_measure_sees_a_hub(prepared):
    graph = PreparedGraph.open(prepared.graph)
    usual = measure(graph)
    hub = np.zeros_like(graph.references.col_E)
    in_degree = np.bincount(hub, minlength=graph.num_papers)
    citations = Csr(np.concatenate([[0], np.cumsum(in_degree)]), hub)
    references = Csr(graph.references.rowptr_N1, hub)
    one_hub = measure(dataclasses.replace(graph, references=references, citations=citations))
    assert one_hub.walk_of_source > 5 * usual.walk_of_source
    without = measure(dataclasses.replace(graph, similar=None))
    assert without.num_similar == 0 < usual.num_similar
    assert without.walk_of_source < usual.walk_of_source


def test_hubs_add_the_walks_that_are_computed_at_once():
    hubs = SHAPES["hubs"]
    few, many = (
        estimated(dataclasses.replace(hubs, walk_of_source=walk, walk_of_held_out=walk), "", 1)
        for walk in (100_000, 300_000)
    )
    assert 0 < many - few < 50 * MIB


def test_mapped_citations_count_as_far_as_there_is_room():
    def needed(allowed):
        return estimate(SHAPES["large"], config=config.load(), workers=1, allowed=allowed)

    whole = needed(1 << 40)
    assert whole == needed(None) == needed(whole)
    assert needed(whole - 20 * MIB) == whole - 20 * MIB
    assert whole - 300 * MIB < needed(whole - 300 * MIB) < whole - 20 * MIB


@pytest.mark.parametrize("less", ["train.nodes_per_batch=20000", "model.hidden_channels=32"])
def test_estimate_falls_by_what_the_hint_names(less):
    large = "train.nodes_per_batch=60000"
    usual = estimated(SHAPES["large"], large, 2)
    assert estimated(SHAPES["large"], f"{large} {less}", 2) < usual
    assert estimated(SHAPES["large"], large, 1) < usual


@pytest.mark.parametrize("predictor", ["structural", "dot", "mlp"])
def test_estimate_of_extreme_settings(predictor):
    settings = f"model.predictor={predictor} model.num_layers=0 train.nodes_per_batch=2"
    shape = GraphShape(
        num_papers=2, num_features=0, num_citations=1, walk_of_source=1, walk_of_held_out=1
    )
    assert estimated(shape, settings, 1) > WORKER
