"""What Prometheus scrapes; none of it may end a training."""

import math
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from citeflow.paths import RunPaths
from citeflow.tasks.citation_training import OpenCitationTask
from citeflow.training.prometheus import metric_texts, serve_metrics
from citeflow.training.resources import ResourceMonitor

LABELS = {"run": "a", "rank": "3"}
NAMES = OpenCitationTask.names
TEXTS = metric_texts(NAMES)


def serve(port, values):
    return serve_metrics(str(port), values, texts=TEXTS, labels=LABELS)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def test_serve_metrics_has_names_types_and_labels(port):
    values = dict.fromkeys(TEXTS, 7.0)
    with serve(port, lambda: values):
        families = scrape(port)
    entries = {entry.name: entry for family in families for entry in family.samples}
    assert set(entries) == set(values)
    assert all((entry.labels, entry.value) == (LABELS, 7) for entry in entries.values())
    types = {entry.name: family.type for family in families for entry in family.samples}
    counters = {name for name, kind in types.items() if kind == "counter"}
    assert counters == {name for name in values if name.endswith("_total")}
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", port), timeout=5),
    ):
        pass


def test_serve_metrics_has_a_series_for_each_cause(port):
    lost = {"start": 5.0, "restart": 2.5, "redone": math.nan}
    with serve(port, lambda: {"citeflow_train_lost_seconds": lost}):
        (family,) = scrape(port)
    assert family.type == "gauge"
    assert {entry.labels["cause"]: entry.value for entry in family.samples} == {
        "start": 5,
        "restart": 2.5,
    }
    assert all(LABELS.items() <= entry.labels.items() for entry in family.samples)


def test_serve_metrics_reads_at_each_scrape_and_leaves_out_nan(
    group, tmp_path, port, monkeypatch, capsys
):
    values = {}
    with serve(port, lambda: values):
        assert scrape(port) == []
        values.update(citeflow_train_step=1.0, citeflow_train_loss=math.nan)
        assert [family.name for family in scrape(port)] == ["citeflow_train_step"]
    monkeypatch.setenv("CITEFLOW_METRICS_PORT", str(port))
    with ResourceMonitor(group, RunPaths(tmp_path, "r"), NAMES, step=0):
        (family,) = (each for each in scrape(port) if "resident" in each.name)
    assert family.samples[0].labels == {"run": "r", "rank": "0"}
    assert f"serves metrics port={port}\n" in capsys.readouterr().err


def test_serve_metrics_survives_a_port_that_is_taken_or_none(capsys):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        for wrong in (str(taken.getsockname()[1]), "http"):
            with serve(wrong, dict):
                pass
    assert capsys.readouterr().err.count("serves no metrics") == 2


def test_serve_metrics_survives_a_scrape_that_fails(port, capfd):
    def fail():
        raise ZeroDivisionError

    with serve(port, fail):
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as caught:
                scrape(port)
            caught.value.close()
            assert caught.value.code == 500
