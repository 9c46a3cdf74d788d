"""Compare heads on the same structural evidence: perceptrons on sums over paths, look-up encodings,
boosted trees.

    python benchmarks/heads.py GRAPH [--seeds 1] [--batches 60] [--passes 4] [--sources 300]

Every head learns from the same batches, those of citeflow's training, and ranks the same test
citations; there is no encoder. Look-up encodings are those of arXiv 2411.14711: an embedding of
each bucket of the distance, of the number of common neighbors and of Adamic-Adar's index. The trees
are scikit-learn's HistGradientBoostingClassifier. `hard` is of all test citations, `ogb` and `all`
of a sample. Prints a Markdown table on stderr and one JSON object on stdout.

Legend: Y citations, Z sources, K negatives or candidates, P test citations, D structural features.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from citeflow import config as settings
from citeflow.config import Config
from citeflow.evaluation import metrics, ranking
from citeflow.evaluation.chunks import hard_chunks, random_chunks
from citeflow.evaluation.scoring import build_structural_features
from citeflow.graph.candidates import sample_rows
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.decoders import StructuralHead
from citeflow.models.losses import info_nce
from citeflow.models.meta_paths import PATHS
from citeflow.models.structural import StructuralFeatures
from citeflow.sampling import PartitionSampler
from citeflow.tasks.citation_objective import make_batch

Score = Callable[[np.ndarray], np.ndarray]
"""Scores pairs from their structural features, [..., D] to [...]."""

PATH_SUMS = frozenset(path.name for path in PATHS)
LONG_PATHS = frozenset(path.name for path in PATHS if len(path.hops) > 2)
RECENCY = frozenset({"citations_in_1_years", "citations_in_3_years"})

NUM_COMMON = (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 9.5, 14.5, 24.5, 49.5)
ADAMIC_ADAR = (0.01, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0)
"""Bounds of the buckets."""

ENCODING_CHANNELS = 8
TREE_NEGATIVES = 64
"""Of each source, that the trees learn from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a head learns from in one step."""

    positive_YD: Tensor
    negative_ZKD: Tensor
    is_masked_ZK: Tensor
    source_index_Y: Tensor


class LookUpHead(nn.Module):
    """The structural head on look-up encodings, and on the other features that it is given."""

    def __init__(self, names: Sequence[str], kept: Sequence[int]) -> None:
        super().__init__()
        self.common, self.index = names.index("common_neighbors"), names.index("adamic_adar")
        self.long = [i for i, name in enumerate(names) if name in LONG_PATHS]
        self.kept = list(kept)
        self.common_bounds = torch.tensor(NUM_COMMON)
        self.index_bounds = torch.tensor(ADAMIC_ADAR)
        sizes = (3, len(NUM_COMMON) + 1, len(ADAMIC_ADAR) + 1)
        self.encodings = nn.ModuleList(nn.Embedding(size, ENCODING_CHANNELS) for size in sizes)
        self.head = StructuralHead(len(self.kept) + len(sizes) * ENCODING_CHANNELS)

    def forward(self, structural_D: Tensor) -> Tensor:
        """Score pairs, [...], from features [..., D]."""
        # Features of paths are ln(1 + sum), and 0 without a path.
        common = structural_D[..., self.common].expm1()
        index = structural_D[..., self.index].expm1()
        is_far = structural_D[..., self.long].amax(dim=-1) <= 0
        buckets = (
            torch.where(common > 0, 0, 1 + is_far.long()),
            torch.bucketize(common, self.common_bounds),
            torch.bucketize(index, self.index_bounds),
        )
        encoded = [table(bucket) for table, bucket in zip(self.encodings, buckets, strict=True)]
        z = torch.cat([*encoded, structural_D[..., self.kept]], dim=-1)
        score: Tensor = self.head(z.new_zeros(z.shape[:-1]), z)
        return score


class SumsHead(nn.Module):
    """The structural head on some of the features."""

    def __init__(self, kept: Sequence[int]) -> None:
        super().__init__()
        self.kept = list(kept)
        self.head = StructuralHead(len(self.kept))

    def forward(self, structural_D: Tensor) -> Tensor:
        """Score pairs, [...], from features [..., D]."""
        score: Tensor = self.head(
            structural_D.new_zeros(structural_D.shape[:-1]), structural_D[..., self.kept]
        )
        return score


def collect(
    graph: PreparedGraph,
    structural: StructuralFeatures,
    config: Config,
    *,
    batches: int,
    seed: int,
) -> list[Evidence]:
    """Make the batches that one worker would train on, and keep their structural part."""
    sampler = PartitionSampler(
        num_papers=graph.num_papers,
        nodes_per_batch=config.train.nodes_per_batch,
        world_size=1,
        seed=seed,
    )
    found = []
    for step in range(batches):
        batch = make_batch(
            sampler.partition(step, 0),
            graph=graph,
            structural=structural,
            config=config,
            seed=(seed, step, 0),
        )
        part = batch.structural
        assert part is not None
        found.append(
            Evidence(
                positive_YD=part.structural_YD,
                negative_ZKD=part.structural_ZKD,
                is_masked_ZK=batch.false_negative_mask_SK[part.source_Z],
                source_index_Y=part.source_index_Y,
            )
        )
    return found


def train_head(head: nn.Module, evidence: Sequence[Evidence], *, passes: int, seed: int) -> Score:
    """Train a head as citeflow does: InfoNCE, Adam, a learning rate that falls along a cosine."""
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=passes * len(evidence)
    )
    rng = np.random.default_rng(seed)
    for _ in range(passes):
        for place in rng.permutation(len(evidence)):
            part = evidence[place]
            loss = info_nce(
                head(part.positive_YD),
                head(part.negative_ZKD),
                part.is_masked_ZK,
                part.source_index_Y,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def score(structural_D: np.ndarray) -> np.ndarray:
        logits: np.ndarray = head(torch.from_numpy(structural_D)).numpy()
        return logits

    return score


def train_trees(kept: Sequence[int], evidence: Sequence[Evidence], *, seed: int) -> Score:
    """Boost trees on citations and some negatives of each source, by their log loss."""
    positive = torch.cat([part.positive_YD for part in evidence]).numpy()
    negative = torch.cat(
        [
            part.negative_ZKD[:, :TREE_NEGATIVES][~part.is_masked_ZK[:, :TREE_NEGATIVES]]
            for part in evidence
        ]
    ).numpy()
    is_citation = np.repeat([1, 0], [len(positive), len(negative)])
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=200,
        max_leaf_nodes=15,
        min_samples_leaf=50,
        early_stopping=False,
        random_state=seed,
    )
    trees.fit(np.concatenate([positive, negative])[:, kept], is_citation)

    def score(structural_D: np.ndarray) -> np.ndarray:
        rows = structural_D.reshape(-1, structural_D.shape[-1])[:, kept]
        logits: np.ndarray = trees.decision_function(rows).astype(np.float32)
        return logits.reshape(structural_D.shape[:-1])

    return score


def train_all(
    names: Sequence[str], evidence: Sequence[Evidence], *, passes: int, seed: int
) -> Iterator[tuple[str, Score, float]]:
    """Yield name, scores and CPU seconds of each head, trained."""
    every = list(range(len(names)))
    papers = [i for i, name in enumerate(names) if name not in PATH_SUMS]
    lasting = [i for i, name in enumerate(names) if name not in RECENCY]

    def perceptron(make: Callable[[], nn.Module]) -> Callable[[], Score]:
        def train() -> Score:
            torch.manual_seed(seed)
            return train_head(make(), evidence, passes=passes, seed=seed)

        return train

    heads: dict[str, Callable[[], Score]] = {
        "sums (as in the default)": perceptron(lambda: SumsHead(every)),
        "encodings in place of sums": perceptron(lambda: LookUpHead(names, papers)),
        "encodings beside sums": perceptron(lambda: LookUpHead(names, every)),
        "boosted trees on sums": lambda: train_trees(every, evidence, seed=seed),
    }
    if lasting != every:
        heads["sums without recent citations"] = perceptron(lambda: SumsHead(lasting))
        heads["boosted trees without recent citations"] = lambda: train_trees(
            lasting, evidence, seed=seed
        )
    for name, train in heads.items():
        began = time.process_time()
        yield name, train(), time.process_time() - began


def measure(
    graph: PreparedGraph, structural: StructuralFeatures, heads: dict[str, Score], sources: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Rank test citations by all heads at once; figures by head and protocol."""

    def scores(structural_PKD: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        for name, score in heads.items():
            yield name, score(structural_PKD)

    def methods(source_P: np.ndarray, candidate_PK: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        yield from scores(structural.for_candidates(source_P, candidate_PK))

    def shared(
        source_P: np.ndarray,
    ) -> Callable[[np.ndarray], Iterator[tuple[str, np.ndarray]]]:
        ends = structural.ends(structural.paths, source_P)
        return lambda candidate_K: scores(
            structural.features(ends.sums(candidate_K), source_P, candidate_K)
        )

    test = graph.test
    hard_Q = np.flatnonzero(graph.hard.index(test.source_P) >= 0)
    sample_Q = sample_rows(len(test.source_P), sources, 0)
    hard = hard_chunks(test, graph.hard, hard_Q)
    random = random_chunks(test, sample_Q)
    ranks = {
        "hard": ranking.rank([(methods, hard)], name="hard", of=len(hard_Q)),
        "ogb": ranking.rank([(methods, random)], name="ogb", of=len(sample_Q)),
        "all": ranking.rank_among_all(shared, test, graph.candidates(), sample_Q, name="all"),
    }
    return {
        name: {protocol: metrics.ranking(each.by_method[name]) for protocol, each in ranks.items()}
        for name in heads
    }


COLUMNS = (("hard", "mrr"), ("ogb", "mrr"), ("all", "mrr"), ("all", "recall@20"))


def main() -> None:
    """Train and rank for each seed, and print."""
    options = _options()
    graph = PreparedGraph.open(options.graph)
    found: dict[str, list[dict[str, dict[str, float]]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        config = settings.load(overrides=[f"train.seed={seed}"])
        structural = build_structural_features(graph, config.model)
        evidence = collect(graph, structural, config, batches=options.batches, seed=seed)
        heads = {}
        for name, score, took in train_all(
            structural.names, evidence, passes=options.passes, seed=seed
        ):
            heads[name] = score
            seconds.setdefault(name, []).append(round(took, 1))
        for name, figures in measure(graph, structural, heads, options.sources).items():
            found.setdefault(name, []).append(figures)
        _print_table(found, seconds)
    print(json.dumps({"figures": found, "cpu_seconds": seconds}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each head")
    parser.add_argument("--batches", type=int, default=60, help="batches to learn from")
    parser.add_argument("--passes", type=int, default=4, help="passes of a perceptron over them")
    parser.add_argument("--sources", type=int, default=300, help="test citations of `all`, `ogb`")
    return parser.parse_args()


def _print_table(
    found: dict[str, list[dict[str, dict[str, float]]]], seconds: dict[str, list[float]]
) -> None:
    header = ["head", *(" ".join(column) for column in COLUMNS), "CPU s"]
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}", file=sys.stderr)
    for name, runs in found.items():
        means = [np.mean([run[protocol][figure] for run in runs]) for protocol, figure in COLUMNS]
        cells = [name, *(f"{mean:.3f}" for mean in means), f"{np.mean(seconds[name]):.0f}"]
        print(f"| {' | '.join(cells)} |", file=sys.stderr)


if __name__ == "__main__":
    main()
