import pytest

from citeflow.evaluation.baselines import NAMES
from citeflow.reporting import formatting


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formatting.duration, None, "\u2013"),
        (formatting.duration, 59.9, "59.9 s"),
        (formatting.duration, 59.99, "1 min 00 s"),
        (formatting.duration, 3_599.6, "1 h 00 min"),
        (formatting.duration, 9e4, "25 h 00 min"),
        (formatting.memory, None, "\u2013"),
        (formatting.memory, 999, "999 B"),
        (formatting.memory, 1_000, "0.977 KiB"),
        (formatting.memory, 1.5 * 2**40, "1.5 TiB"),
        (formatting.rate, None, "\u2013"),
        (formatting.rate, 12.3, "12.3 / s"),
        (formatting.rate, 19_030, "19k / s"),
        (formatting.rate, 2.5e6, "2.5M / s"),
        (formatting.amount, 16.0, "16"),
        (formatting.difference, -0.5, "\u22120.5000"),
        (formatting.method, "a_new_baseline", "A new baseline"),
        (formatting.method, "one two three four five six", "One two three four five\u2026"),
    ],
)
def test_formatting_of_numbers_and_names(function, value, text):
    assert function(value) == text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Test MRR 0.7518, 0.0707 above the best baseline (Resource allocation, 0.6811)."),
        ({"mrr": 0.5}, "Test MRR 0.5000, 0.1811 below the best baseline"),
    ],
)
def test_headline_compares_with_the_best_baseline(report, changes, sentence):
    test = report.test.model_copy(update=changes)
    assert formatting.headline(report.model_copy(update={"test": test})).startswith(sentence)
    few = report.model_copy(update={"test": test.model_copy(update={"num_positives": 1})})
    assert formatting.headline(few).endswith("It is of 1 citation only, too few to say anything.")
    alone = report.model_copy(update={"baselines": {}, "protocols": {}})
    assert formatting.headline(alone) == "Test MRR 0.7518."
    assert set(formatting.BASELINES) == set(NAMES)
    assert set(formatting.PROTOCOLS) == set(report.protocols)
    labels = {**formatting.METRICS, **formatting.COUNTS}
    assert set(labels) == set(report.test.figures())
