"""What Prometheus gets when it asks, over a real connection."""

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from citeflow.training.prometheus import OF_TRAINING, OF_USAGE, served
from citeflow.utils.usage import Source

LABELS = {"run": "a", "rank": "3"}


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def test_a_scrape_has_every_figure_with_its_unit_and_labels(port):
    facts = dict.fromkeys(OF_TRAINING, 7.0)
    with served(str(port), Source().read, lambda: facts, LABELS):
        families = scraped(port)
    found = {entry.name: entry for family in families for entry in family.samples}
    assert set(found) == {*OF_USAGE, *OF_TRAINING}
    assert all(entry.labels == LABELS for entry in found.values())
    assert found["citeflow_train_step"].value == 7
    assert found["citeflow_process_resident_memory_bytes"].value > 1e7
    kinds = {entry.name: family.type for family in families for entry in family.samples}
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        n for n in kinds if n.endswith("_total")
    }


def test_every_scrape_is_of_now_and_without_what_is_not_known_yet(port):
    facts = {}
    with served(str(port), lambda: None, lambda: facts, LABELS):
        assert scraped(port) == []
        facts["citeflow_train_step"] = 1.0
        facts["citeflow_train_loss"] = float("nan")
        assert [family.name for family in scraped(port)] == ["citeflow_train_step"]


def test_nothing_listens_where_no_port_is_named_and_after_the_end(port):
    for named in (None, "", str(port)):
        with served(named, lambda: None, dict, LABELS):
            pass
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port), timeout=5),
        ):
            pass


def test_a_port_that_is_taken_or_is_none_ends_nothing_and_is_told(capsys):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        for wrong in (str(taken.getsockname()[1]), "http"):
            with served(wrong, lambda: None, dict, LABELS):
                pass
    assert capsys.readouterr().err.count("serves no metrics") == 2


def test_a_scrape_that_fails_ends_nothing(port, capfd):
    def fail():
        raise ZeroDivisionError

    with served(str(port), fail, dict, LABELS):
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as caught:
                scraped(port)
            caught.value.close()
            assert caught.value.code == 500
