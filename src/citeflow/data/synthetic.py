"""The synthetic twin of ogbl-citation2: a citation graph of any size, as hard as the real one, the same every time.

What makes it that hard, by its constants here and in `growth`:

- A topic cites its sister topic, the next one of its subfield, not itself. So two papers on one list are seldom linked,
  and common neighbours (0.52 MRR) come from copied references and from what topics of few papers share by chance; yet
  what a paper cites tells its place, which an encoder reads off its neighbours' features (0.80). More topics raise
  both, more copying raises common neighbours alone.
- Sister topics share the vectors of subfield and field, not their own. So the pair's own features tell the subfield and
  hardly more (0.29): its signal sets that figure, the topic's signal serves those who average neighbours.
- A head start, a narrow fitness and redrawing inside the subfield keep the rich from taking all: popularity alone stays
  weak (0.05), and no paper of a small graph becomes everybody's neighbour.

`benchmarks/synthetic_calibration.py` measures it.

Legend: N papers, T topics, F features, E citations, B papers of one chunk.
"""

from pathlib import Path

import numpy as np

from citeflow import files
from citeflow.config import SyntheticConfig
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.citation_process import LEVEL_WIDTHS, Papers, grow

FEATURES = 128
LAST_YEAR = 2019
YEARS = 50
GROWTH = 0.05
"""Papers per year grow in a straight line, by this share of the first year's; the last of 50 years then holds 3 % of
all papers, as in citation2, and the first one enough to be cited."""

TOPICS = 15.0
TOPICS_POWER = 0.4
"""Topics per papers ** power: a topic holds 25 of 20,000 papers, 66 of 97,598 and 500 of 2.9 million. Were their number
fixed, common neighbours would get rarer with size; were their size fixed, the test easier for an encoder."""

SHELVES = 2.0
"""Papers of a topic per reference of a list, at the least; else a list empties its topic."""

FITNESS_SPREAD = 0.8
"""Standard deviation of the logarithm of a paper's fitness."""

TOPIC_SPREAD = 0.3
"""Standard deviation of the logarithm of a topic's share of the papers."""

SIGNALS = (1.0, 0.47, 0.4)
"""Length of topic, subfield and field vector, against noise of length 1."""

DRIFT = 0.3
"""How far the vocabulary moves from the first year to the last, against noise of length 1."""

ENTRY = 0.25
"""Standard deviation of the noise in one entry, about that of averaged word vectors."""

_CHUNK = 65_536


def make_synthetic(config: SyntheticConfig) -> CitationGraph:
    """Grow a citation graph; the same settings give the same arrays.

    Returns rows in time order: x_NF float32 `[N, 128]`, day_N int32, edge_2E int32 sorted by citing paper. Every
    citation goes to a paper of an earlier year.
    """
    paper_rng, edge_rng, feature_rng = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(config.seed).spawn(3)
    )
    papers = _make_papers(config, paper_rng)
    first_of_january_N = (papers.year_N - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    return CitationGraph(
        edge_2E=grow(papers, config.citations_per_paper, edge_rng),
        id_N=np.arange(config.num_papers, dtype=np.int64),
        x_NF=_make_features(papers, feature_rng),
        day_N=first_of_january_N.astype(np.int32),
    )


def write_synthetic(folder: Path, config: SyntheticConfig) -> None:
    """Write the graph as a citation folder: papers.parquet, citations.parquet, features.npy."""
    graph = make_synthetic(config)
    assert graph.day_N is not None
    assert graph.x_NF is not None
    year_N = graph.day_N.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int32) + 1970
    with files.new_directory(folder) as work:
        files.save_table(work / "papers.parquet", {"id": graph.id_N, "year": year_N})
        files.save_table(
            work / "citations.parquet", {"citing": graph.edge_2E[0], "cited": graph.edge_2E[1]}
        )
        files.save_array(work / "features.npy", graph.x_NF)


def _make_papers(config: SyntheticConfig, rng: np.random.Generator) -> Papers:
    num_papers, width = config.num_papers, LEVEL_WIDTHS[1]
    wanted = min(
        TOPICS * num_papers**TOPICS_POWER, num_papers / (SHELVES * config.citations_per_paper)
    )
    num_topics = max(1, int(wanted) // width) * width
    share_T = rng.lognormal(0, TOPIC_SPREAD, num_topics)
    return Papers(
        topic_N=rng.choice(num_topics, size=num_papers, p=share_T / share_T.sum()).astype(np.int32),
        year_N=_years(num_papers),
        fitness_N=rng.lognormal(0, FITNESS_SPREAD, num_papers).astype(np.float32),
        num_topics=num_topics,
    )


def _years(num_papers: int) -> np.ndarray:
    share = np.cumsum(1 + GROWTH * np.arange(YEARS))
    end = np.rint(share / share[-1] * num_papers).astype(np.int64)
    return np.repeat(
        np.arange(LAST_YEAR - YEARS + 1, LAST_YEAR + 1, dtype=np.int32), np.diff(end, prepend=0)
    )


def _make_features(papers: Papers, rng: np.random.Generator) -> np.ndarray:
    """Topic, subfield, field and time, each a direction, under noise."""
    centre_TF = np.zeros((papers.num_topics, FEATURES), np.float32)
    for signal, width in zip(SIGNALS, LEVEL_WIDTHS, strict=True):
        group_T = np.arange(papers.num_topics) // width
        centre_TF += signal * _directions(int(group_T[-1]) + 1, rng)[group_T]
    drift_F = DRIFT * _directions(1, rng)[0]
    time_N = ((papers.year_N - LAST_YEAR) / YEARS).astype(np.float32)
    x_NF = np.empty((len(papers.topic_N), FEATURES), np.float32)
    for first in range(0, len(x_NF), _CHUNK):
        x_BF = x_NF[first : first + _CHUNK]
        rng.standard_normal(out=x_BF, dtype=np.float32)
        x_BF *= np.float32(ENTRY)
        x_BF += centre_TF[papers.topic_N[first : first + _CHUNK]]
        x_BF += time_N[first : first + _CHUNK, None] * drift_F
    return x_NF


def _directions(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((count, FEATURES), dtype=np.float32) * np.float32(ENTRY)
