"""Grafana's dashboard and Prometheus' alerts: what they ask for, and when an alert comes."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from citeflow.tasks.citation_training import OpenCitationTask
from citeflow.training.prometheus import metric_texts

METRICS = metric_texts(OpenCitationTask.names)
PROMTOOL = shutil.which("promtool")
LABELS = {"namespace", "pod", "run", "rank", "cause"}
"""What serve_metrics and the PodMonitor give."""

UNITS = {"none", "cps", "percentunit", "bytes", "Bps", "s"}
"""Of those that Grafana knows, the ones that fit: citations are counts per second."""

SERIES = """
- series: citeflow_train_step{namespace="n",run="a",pod="p"}
  values: 0+10x20 200x20
- series: citeflow_train_step{namespace="n",run="new",pod="p"}
  values: _x35 0x5
- series: citeflow_process_cpu_seconds_total{namespace="n",run="a",pod="p",instance="1"}
  values: 0 50 0 50 0 50 stale
- series: citeflow_process_cpu_seconds_total{namespace="n",run="a",pod="p",instance="2"}
  values: _x5 0+50x3 stale
- series: citeflow_process_cpu_seconds_total{namespace="n",run="a",pod="p",instance="3"}
  values: _x9 0+50x31
- series: citeflow_volume_size_bytes{namespace="n",run="a",pod="p"}
  values: 100x40
- series: citeflow_volume_free_bytes{namespace="n",run="a",pod="p"}
  values: 50-2x24 2x15
"""
"""A sample a minute: steps until minute 20; pod 1 restarts twice, pods 2 and 3 replace it."""


@pytest.fixture(scope="module")
def objects(folder, render):
    """What watches trainings."""
    things = render(folder / "components" / "monitoring")
    return {each["kind"]: each for each in things if each["metadata"]["name"] != "citeflow-serve"}


@pytest.fixture(scope="module")
def board(objects):
    return json.loads(objects["ConfigMap"]["data"]["citeflow.json"])


@pytest.fixture(scope="module")
def rules(objects):
    return {
        rule["alert"]: rule
        for group in objects["PrometheusRule"]["spec"]["groups"]
        for rule in group["rules"]
    }


@pytest.fixture(scope="module")
def queries(board, rules):
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in rules.values()]


def test_queries_name_exported_metrics_and_their_labels(board, queries):
    asked = {name for query in queries for name in re.findall(r"[a-z]+_[a-z_]+", query)}
    functions = {"count_over_time", "rate_interval"}
    assert asked - functions == set(METRICS), "no other, and none forgotten"
    for query in queries:
        assert query.count("(") == query.count(")")
        grouped = " ".join(re.findall(r"by \(([^)]*)\)", query)).replace(",", " ").split()
        matched = re.findall(r"(\w+)=~?\"", query)
        assert {*grouped, *matched} <= LABELS
        for metric in re.findall(r"rate\((\w+)", query):
            assert metric.endswith("_total")
    legends = " ".join(target["legendFormat"] for p in board["panels"] for target in p["targets"])
    assert set(re.findall(r"{{(\w+)}}", legends)) <= LABELS


def test_panels_have_units_and_do_not_overlap(board):
    places = set()
    for panel in board["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & places
        places |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    variables = {f"${entry['name']}" for entry in board["templating"]["list"]}
    assert set(re.findall(r"\$[a-z]+", json.dumps(board["panels"]))) <= variables


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_alerts_come_when_they_should(objects, rules, board, tmp_path):
    spec = objects["PrometheusRule"]["spec"]
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    records = [
        {"record": f"panel_{index}", "expr": query.replace("$__rate_interval", "5m")}
        for index, query in enumerate(shown)
    ]
    groups = [*spec["groups"], {"name": "dashboard", "rules": records}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    told = {"namespace": "n", "run": "a", "severity": "warning"}

    def expect(minute, alert, value=None):
        annotations = rules[alert]["annotations"]
        summary = re.sub(r"{{ \$value.*?}}", str(value), annotations["summary"])
        texts = {**annotations, "summary": summary.replace("{{ $labels.run }}", "a")}
        came = [{"exp_labels": told, "exp_annotations": texts}] if value else []
        return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": came}

    test = {
        "interval": "1m",
        "input_series": yaml.safe_load(SERIES),
        "alert_rule_test": [
            expect(29, "CiteflowNoProgress"),
            expect(32, "CiteflowNoProgress", "some"),
            expect(7, "CiteflowRestarts"),
            expect(12, "CiteflowRestarts", 4),
            expect(20, "CiteflowVolumeNearlyFull"),
            expect(23, "CiteflowVolumeNearlyFull", "96%"),
        ],
    }
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
