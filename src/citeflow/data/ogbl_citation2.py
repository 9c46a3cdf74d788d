"""ogbl-citation2, the reference dataset: 2,927,963 papers of the Microsoft Academic Graph.

Hu et al., "Open Graph Benchmark: Datasets for Machine Learning on Graphs", NeurIPS 2020.
"""

import os
from pathlib import Path

from citeflow.config import Config
from citeflow.data.raw_store import RawStore, Source

NAME = "ogbl-citation2"

URL = "http://snap.stanford.edu/ogb/data/linkproppred/citation-v2.zip"
"""OGB's server. CITEFLOW_OGB_URL names a mirror, CITEFLOW_OGB_SHA256 the digest of the archive."""


def download(store: RawStore, config: Config) -> Path:
    """Download OGB's archive into the store, unless it was before; no setting applies."""
    source = Source(
        dataset=NAME,
        url=os.environ.get("CITEFLOW_OGB_URL") or URL,
        sha256=os.environ.get("CITEFLOW_OGB_SHA256", "").lower() or None,
        format="ogb",
    )
    return store.add_url(source)
