"""The dataset `synthetic`: a seeded citation graph of any size, as difficult as ogbl-citation2.

Its difficulty is set by the constants here and in `citation_process`:

- A topic cites its sister topic, the next one of its subfield, not itself. So two papers on one
  list are seldom linked, and common neighbors (0.52 MRR) come from copied references and from
  what small topics share by chance; but the papers that a paper cites reveal its topic, which an
  encoder reads off their features (0.80). More topics raise both, more copying raises common
  neighbors alone.
- Sister topics share the vectors of subfield and field, not their own. So the features of a pair
  reveal the subfield and hardly more (0.29). Which topic cites which is in the features as well,
  but only for who learns it topic by topic: how far the vectors stand out from the noise sets how
  much of it a perceptron on single papers gets in 40 epochs. Models that aggregate over neighbors
  average the noise away, so it takes little from them.
- An initial attractiveness, a narrow fitness and replacing duplicates inside the subfield limit
  preferential attachment: popularity alone stays weak (0.05), and no paper of a small graph becomes
  a neighbor of all others.

`benchmarks/synthetic_calibration.py` measures these figures.

Legend: N papers, T topics, F features, E citations, B papers of one chunk.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from citeflow import files
from citeflow.config import Config, SyntheticConfig
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.citation_process import LEVEL_WIDTHS, Papers, simulate_citations
from citeflow.data.raw_store import RawStore

NAME = "synthetic"

VERSION = 3
"""Raise it when the same settings give another graph than before."""

FEATURES = 128
LAST_YEAR = 2019
YEARS = 50
GROWTH = 0.05
"""Papers per year grow linearly, by this share of the first year's; the last of 50 years then holds
3 % of all papers, as in citation2, and the first one enough to be cited."""

TOPICS = 15.0
TOPICS_POWER = 0.4
"""Topics per papers ** power: a topic holds 25 of 20,000 papers, 66 of 97,598, 500 of 2.9 million.
With a fixed number of topics, common neighbors would get rarer with size; with topics of a fixed
size, the test would get easier for an encoder."""

MIN_PAPERS_PER_REFERENCE = 2.0
"""Least papers of a topic per reference of a list; else a list would exhaust its topic."""

FITNESS_SIGMA = 0.8
"""Standard deviation of the logarithm of a paper's fitness."""

TOPIC_SIGMA = 0.3
"""Standard deviation of the logarithm of a topic's share of the papers."""

SIGNALS = (0.8, 0.376, 0.32)
"""Length of topic, subfield and field vector, against noise of length 1."""

DRIFT = 0.3
"""Shift of all features from the first year to the last, against noise of length 1."""

NOISE = 0.25
"""Standard deviation of the noise in one entry, about that of averaged word vectors."""

_CHUNK = 65_536


def download(store: RawStore, config: Config) -> Path:
    """Generate the graph of the settings `synthetic`, unless it is stored already."""
    settings = {**config.synthetic.model_dump(), "version": VERSION}
    return store.generate(NAME, settings, lambda work: write_synthetic(work, config.synthetic))


def make_synthetic(config: SyntheticConfig) -> CitationGraph:
    """Generate a citation graph; the same settings give the same arrays.

    Returns:
        Papers in time order: x_NF [N, 128], day_N int32, edge_2E int32 sorted by citing
        paper. Every citation goes to a paper of an earlier year.
    """
    papers, edge_2E, blocks = _generate(config)
    first_of_january_N = (papers.year_N - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    return CitationGraph(
        edge_2E=edge_2E,
        id_N=np.arange(config.num_papers, dtype=np.int64),
        x_NF=np.concatenate(list(blocks)).astype(config.dtype),
        day_N=first_of_january_N.astype(np.int32),
    )


def write_synthetic(folder: Path, config: SyntheticConfig) -> None:
    """Write the graph as a citation folder: papers.parquet, citations.parquet, features.npy."""
    papers, edge_2E, blocks = _generate(config)
    with files.new_directory(folder) as work:
        id_N = np.arange(config.num_papers, dtype=np.int64)
        files.save_table(work / "papers.parquet", {"id": id_N, "year": papers.year_N})
        files.save_table(work / "citations.parquet", {"citing": edge_2E[0], "cited": edge_2E[1]})
        del edge_2E
        shape = (config.num_papers, FEATURES)
        files.save_blocks(work / "features.npy", blocks, shape, np.dtype(config.dtype))


def _generate(config: SyntheticConfig) -> tuple[Papers, np.ndarray, Iterator[np.ndarray]]:
    """Return papers, citations, and the features block by block."""
    # A stream of random numbers for each part, so that a change in one does not change the others.
    seeds = np.random.SeedSequence(config.seed).spawn(3)
    paper_rng, edge_rng, feature_rng = (np.random.default_rng(seed) for seed in seeds)
    papers = _make_papers(config, paper_rng)
    edge_2E = simulate_citations(papers, config.citations_per_paper, edge_rng)
    return papers, edge_2E, _make_features(papers, feature_rng)


def _make_papers(config: SyntheticConfig, rng: np.random.Generator) -> Papers:
    num_papers = config.num_papers
    width = LEVEL_WIDTHS[1]  # whole subfields, so that each topic has a sister
    wanted = min(
        TOPICS * num_papers**TOPICS_POWER,
        num_papers / (MIN_PAPERS_PER_REFERENCE * config.citations_per_paper),
    )
    num_topics = max(1, int(wanted) // width) * width
    share_T = rng.lognormal(0, TOPIC_SIGMA, num_topics)
    return Papers(
        topic_N=rng.choice(num_topics, size=num_papers, p=share_T / share_T.sum()).astype(np.int32),
        year_N=_years(num_papers),
        fitness_N=rng.lognormal(0, FITNESS_SIGMA, num_papers).astype(np.float32),
        num_topics=num_topics,
    )


def _years(num_papers: int) -> np.ndarray:
    share = np.cumsum(1 + GROWTH * np.arange(YEARS))
    end = np.rint(share / share[-1] * num_papers).astype(np.int64)
    return np.repeat(
        np.arange(LAST_YEAR - YEARS + 1, LAST_YEAR + 1, dtype=np.int32), np.diff(end, prepend=0)
    )


def _make_features(papers: Papers, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Add up a vector of the topic, the subfield, the field and the year, and noise."""
    centre_TF = np.zeros((papers.num_topics, FEATURES), np.float32)
    for signal, width in zip(SIGNALS, LEVEL_WIDTHS, strict=True):
        group_T = np.arange(papers.num_topics) // width
        centre_TF += signal * _directions(int(group_T[-1]) + 1, rng)[group_T]
    drift_F = DRIFT * _directions(1, rng)[0]
    time_N = ((papers.year_N - LAST_YEAR) / YEARS).astype(np.float32)
    for first in range(0, len(papers.topic_N), _CHUNK):
        topic_B = papers.topic_N[first : first + _CHUNK]
        x_BF = rng.standard_normal((len(topic_B), FEATURES), dtype=np.float32)
        x_BF *= np.float32(NOISE)
        x_BF += centre_TF[topic_B]
        x_BF += time_N[first : first + _CHUNK, None] * drift_F
        yield x_BF


def _directions(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((count, FEATURES), dtype=np.float32) * np.float32(NOISE)
