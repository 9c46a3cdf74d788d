import pytest

from citeflow.reporting import formatting, markdown


def test_the_summary_is_tables_with_as_many_cells_in_each_row(report):
    text = markdown.summary(report)
    assert text.startswith("# hepth\n\nTest MRR 0.7518")
    widths = {}
    for block in text.split("\n## ")[1:]:
        title, _, rest = block.partition("\n\n")
        widths[title] = {line.count("|") for line in rest.strip().splitlines()}
    assert {title: len(counts) for title, counts in widths.items()} == dict.fromkeys(
        ["Scores", "Against the baselines", "Training", "Stages"], 1
    )


def test_a_hostile_name_makes_no_markup(report):
    report["dataset"] = "a|b\n# <b>*c*</b> [d](e) `f`"
    first = markdown.summary(report).splitlines()[0]
    assert first.startswith("# a&#124;b &#35; &lt;b&gt;&#42;c&#42;")
    assert not set("<>*[]`|") & set(first)


def test_the_terminal_table_is_aligned(report):
    text = markdown.table(report)
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    assert len(blocks) == 4
    for block in blocks[:3]:
        assert len({len(line) for line in block}) == 1, block
    assert "train       5 min 09 s     1.78 GiB" in text
    assert text.endswith(
        "hepth: Test MRR 0.7518, 0.0707 above the best baseline (Resource allocation, 0.6811).\n"
    )


def test_an_empty_report_makes_text():
    assert "no test result" in markdown.table({})
    assert "no test result" in markdown.summary({})


def test_a_model_below_the_baselines_is_said_to_be_below(report):
    report["test"]["mrr"] = 0.5
    assert "0.1811 below the best baseline" in formatting.headline(report)
    assert "This model             0.5000" in markdown.table(report)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"),
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (59.99, "1 min 00 s"),
        (3_599.6, "1 h 00 min"),
        (9e4, "25 h 00 min"),
    ],
)
def test_durations_use_the_two_largest_units(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "\u2013"),
        (999, "999 B"),
        (1_000, "0.977 KiB"),
        (2**30, "1 GiB"),
        (1.5 * 2**40, "1.5 TiB"),
    ],
)
def test_memory_has_the_binary_unit_that_fits(size, text):
    assert formatting.memory(size) == text


@pytest.mark.parametrize(
    ("per_s", "text"),
    [(None, "\u2013"), (12.3, "12.3 / s"), (19_030, "19k / s"), (2.5e6, "2.5M / s")],
)
def test_rates_have_few_digits(per_s, text):
    assert formatting.rate(per_s) == text
