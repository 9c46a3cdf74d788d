"""The inputs of public bug reports that lie in `../shared/cases`, where a checkout has them."""

import pytest

from citeflow import config
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.errors import CiteflowError
from citeflow.graph.preparation import prepare
from citeflow.graph.prepared import PreparedGraph

SETTINGS = config.load(overrides=["data.text_dim=4", "data.eval_negatives=100"])
WHOLE = (600, 3420)
CASES = {
    "00-good": WHOLE,
    "01-source-target": WHOLE,
    "02-gephi": WHOLE,
    "03-tsv": WHOLE,
    "04-tab-in-csv": WHOLE,
    "07-snap/cit-Test.txt": WHOLE,
    "10-openalex-jsonl/works.jsonl": WHOLE,
    "11-s2/papers.jsonl": WHOLE,
    "15-edges-only": WHOLE,
    "16-graphml/g.graphml": (2, 1),
    "28-pq-double": WHOLE,
    "30-year-float-blanks": "column 'year' has no value: 12 of 600",
    "35-backslash-quote": WHOLE,
    "39-sep-line": WHOLE,
    "40-nfc-nfd": WHOLE,
    "41-doi-case": "differs from an id in upper and lower case only",
    "43-float-ids": WHOLE,
    "52-year-9999": "WARNING: 60 of 600 papers",
    "60-openalex-columns": "the date is 'publication_year'",
    "63-weights": "columns ignored: 'weight'",
    "64-swapped": "are citing and cited swapped",
    "65-both-directions": "listed in both directions",
    "70-survey": "1 paper not held out, as far fewer papers than usual",
    "91-archives/works.jsonl": "no dataset that citeflow knows",
    "91-archives/edges.csv": WHOLE,
    "91-archives/nested-two.zip": WHOLE,
    "91-archives/windows-backslash.zip": WHOLE,
    "91-archives/two-datasets.zip": "archive with 2 datasets",
    "93-tiny": "WARNING: the test has 1 citation",
    "94-embedding-list": WHOLE,
    "95-spark-folder": WHOLE,
}


@pytest.mark.parametrize("case", CASES)
def test_reported_case_is_read_or_says_why_not(case, checkout, tmp_path):
    source = checkout.parent / "shared" / "cases" / case
    if not source.exists():
        pytest.skip("the cases lie beside the checkout of developers only")
    remarks = ()
    size = None
    try:
        raw = download_dataset(str(source), data_root=tmp_path, config=SETTINGS)
        graph = read_raw(raw, SETTINGS.data)
        size = len(graph.id_N), graph.edge_2E.shape[1]
        prepared = PreparedGraph.open(prepare(raw, data_root=tmp_path, config=SETTINGS.data))
        remarks = prepared.facts.remarks
        said = " | ".join(remarks)
    except CiteflowError as error:
        said = str(error)
    print(f"{case}: {size}: {said}")
    wanted = CASES[case]
    assert (wanted == size) if isinstance(wanted, tuple) else wanted in said
    assert "/raw/" not in said
    assert ".parquet" not in said or list(source.rglob("*.parquet"))
