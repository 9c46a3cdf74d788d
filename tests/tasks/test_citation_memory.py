"""The estimate of memory, against peaks that were measured."""

import dataclasses

import numpy as np
import pytest

from citeflow import config
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.kubernetes.job_spec import JobSpec, quantity
from citeflow.tasks.citation_memory import MIB, WORKER, GraphShape, estimate, measure

pytestmark = pytest.mark.fault("F14")

HEPTH, SMALL, DEMO, TEXT, MIDDLE, DENSE, LARGE, HUBS, FULL = (
    (29_557, 50, 348_531, 4046, 3559, 786_356),
    (5_000, 128, 51_697, 1570, 1160, 117_350),
    (20_000, 128, 206_762, 1679, 1183, 467_358),
    (30_000, 128, 310_232, 1572, 1150, 677_048),
    (97_598, 128, 1_013_072, 1864, 1292, 2_341_280),
    (30_000, 128, 1_238_596, 19_547, 13_264, 712_802),
    (300_000, 128, 3_102_029, 2293, 1812, 7_921_602),
    (100_000, 32, 1_098_794, 211_152, 163_941, 2_363_276),
    (2_927_963, 128, 30_275_039, 3979, 2673, 90_490_790),
)
"""Papers, features, training citations, the two sizes of walks, entries of the similarity graph, as
`measure` finds them. The first is hep-th, TEXT has titles and abstracts in place of features, in
HUBS (that of benchmarks/hubs.py) all papers cite one and half of them each of four more, the others
are synthetic; FULL has the size of ogbl-citation2."""

SEED = (
    "model.num_layers=5 model.predictor=dot train.loss=bce model.hidden_channels=256 "
    "train.nodes_per_batch=40000 model.features=ones model.aggr=add model.normalize=true"
)
PEAKS = [
    (SMALL, 1, "", 638),
    (DEMO, 1, "", 727),
    (DEMO, 1, "model.predictor=dot", 674),
    (DEMO, 1, "model.predictor=mlp", 705),
    (DEMO, 2, "", 813),
    (HUBS, 1, "data.holdout=0.002", 1027),
    (HUBS, 2, "data.holdout=0.002", 1451),
    (HEPTH, 1, "", 874),
    (HEPTH, 2, "", 824),
    (HEPTH, 4, "model.hidden_channels=32 train.nodes_per_batch=1000", 1000),
    (TEXT, 1, "", 830),
    (MIDDLE, 1, "model.hidden_channels=32 train.nodes_per_batch=2000 data.holdout=0.03", 777),
    (MIDDLE, 1, "train.nodes_per_batch=60000 data.holdout=0.03", 1061),
    (MIDDLE, 1, "train.num_negatives=1000 data.holdout=0.03", 1224),
    (MIDDLE, 1, "model.predictor=dot data.holdout=0.03", 889),
    (MIDDLE, 1, "model.predictor=mlp data.holdout=0.03", 1627),
    (MIDDLE, 1, f"{SEED} data.holdout=0.03", 1415),
    (MIDDLE, 2, "model.hidden_channels=256 data.holdout=0.03", 1674),
    (MIDDLE, 2, "model.hidden_channels=512 train.nodes_per_batch=5000 data.holdout=0.03", 2151),
    (DENSE, 2, "train.nodes_per_batch=3000", 1322),
    (LARGE, 1, "train.nodes_per_batch=50000", 1324),
    (LARGE, 2, "", 1421),
    (FULL, 1, "", 4925),
    (FULL, 2, "", 5194),
]
"""Graph, workers, settings, and the most MiB that all processes had together, by
benchmarks/memory.py while they trained for some steps, validated and calibrated."""


def estimated(sizes, settings, workers):
    shape = GraphShape(**dict(zip(GraphShape.__dataclass_fields__, sizes, strict=False)))
    return estimate(shape, config=config.load(overrides=settings.split()), workers=workers)


@pytest.mark.parametrize(("shape", "workers", "settings", "peak"), PEAKS)
def test_estimate_is_within_a_fifth_of_a_measured_peak(shape, workers, settings, peak):
    ratio = estimated(shape, settings, workers) / MIB / peak
    assert 0.8 <= ratio <= 1.2


@pytest.mark.parametrize(("shape", "workers", "settings", "peak"), PEAKS)
def test_pods_get_what_was_measured_and_at_most_half_more(shape, workers, settings, peak):
    spec = JobSpec().sized(estimated(shape, settings, workers))
    assert peak <= float(quantity(spec.memory)) / MIB <= 1.5 * peak + 64


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
    few, many = (estimated((*HUBS[:3], walk, walk), "", 1) for walk in (100_000, 300_000))
    assert 0 < many - few < 50 * MIB


def test_mapped_citations_count_as_far_as_there_is_room():
    shape = GraphShape(**dict(zip(GraphShape.__dataclass_fields__, LARGE, strict=True)))

    def needed(allowed):
        return estimate(shape, config=config.load(), workers=1, allowed=allowed)

    whole = needed(1 << 40)
    assert whole == needed(None) == needed(whole)
    assert needed(whole - 20 * MIB) == whole - 20 * MIB
    assert whole - 300 * MIB < needed(whole - 300 * MIB) < whole - 20 * MIB


@pytest.mark.parametrize("less", ["train.nodes_per_batch=20000", "model.hidden_channels=32"])
def test_estimate_falls_by_what_the_hint_names(less):
    large = "train.nodes_per_batch=60000"
    usual = estimated(LARGE, large, 2)
    assert estimated(LARGE, f"{large} {less}", 2) < usual
    assert estimated(LARGE, large, 1) < usual


@pytest.mark.parametrize("predictor", ["structural", "dot", "mlp"])
def test_estimate_of_extreme_settings(predictor):
    settings = f"model.predictor={predictor} model.num_layers=0 train.nodes_per_batch=2"
    assert estimated((2, 0, 1, 1, 1), settings, 1) > WORKER
