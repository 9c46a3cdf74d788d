import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from citeflow.errors import ConfigError
from citeflow.kubernetes.job_spec import JobSpec, check_mounted, from_yaml, quantity, to_yaml

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
CLAIMS = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,9}[a-z0-9])?", fullmatch=True)
CORES = st.builds("{}{}".format, st.integers(1, 4096), st.sampled_from(["", "m", "k"]))
MEMORY = st.builds(
    "{}{}".format, st.integers(1, 4096), st.sampled_from(["M", "G", "T", "Ki", "Mi", "Gi", "Ti"])
)
HOURS = st.floats(1e-3, 24 * 365)
TOLERATION = st.dictionaries(
    st.sampled_from(["key", "operator", "value", "effect", "tolerationSeconds"]),
    NAMES | st.integers(0, 9),
)
SPECS = st.builds(
    JobSpec,
    workers=st.integers(1, 10_000),
    image=st.builds("{}/{}:{}".format, NAMES, NAMES, st.sampled_from(["0.1.0", "sha-1a2b", "7"])),
    image_pull_policy=st.sampled_from(["IfNotPresent", "Always", "Never"]),
    image_pull_secrets=st.lists(CLAIMS, max_size=3).map(tuple),
    cpu=CORES,
    memory=MEMORY,
    shared_memory=st.sampled_from(["1k", "0.5k", "1000"]),
    gpus=st.integers(0, 8),
    gpu_resource=CLAIMS,
    volumes=st.sets(CLAIMS, max_size=3).map(lambda names: {name: f"/on/{name}" for name in names}),
    node_selector=st.dictionaries(
        CLAIMS, CLAIMS | st.sampled_from(["true", "null", "1e3", "2026-01-01"])
    ),
    tolerations=st.lists(TOLERATION, max_size=2).map(tuple),
    queue=CLAIMS | st.just(""),
    deadline_hours=HOURS,
    keep_hours=HOURS | st.just(0.0),
    unschedulable_minutes=HOURS,
    priority_class=NAMES | st.just(""),
    restarts=st.integers(0, 100),
    runtime=CLAIMS,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=40)
@given(spec=SPECS)
def test_to_yaml_round_trips(spec):
    assert from_yaml(to_yaml(spec)) == spec


def test_from_yaml_takes_nothing_and_null_for_defaults():
    nulls = "".join(f"{name}: null\n" for name in JobSpec.model_fields)
    for text in ("", "null", "{}", "# nothing\n", nulls):
        assert from_yaml(text) == JobSpec()
    spec = from_yaml("{cpu: 4, gpus: 2}", workers=7, image="mine:1")
    assert (spec.cpu, spec.workers, spec.image, spec.world_size) == ("4", 7, "mine:1", 14)


def test_from_yaml_reads_numbers_and_text_alike():
    text = """
        workers: "3"
        cpu: 0.5
        memory: 2000000000
        deadline_hours: 1e-1
        keep_hours: 2
        gpus: 1.0
        volumes: {citeflow-data: /mnt/citeflow, "7": /seven}
        node_selector: {cloud.google.com/gke-spot: "true", zone: 4}
        image_pull_secrets: [one, two]
        tolerations: [{key: nvidia.com/gpu, operator: Exists}]
    """
    spec = from_yaml(text)
    assert (spec.workers, spec.cpu, spec.memory, spec.gpus) == (3, "0.5", "2000000000", 1)
    assert (spec.deadline_hours, spec.keep_hours) == (0.1, 2.0)
    assert spec.volumes == {"citeflow-data": "/mnt/citeflow", "7": "/seven"}
    assert spec.node_selector["zone"] == "4"
    assert spec.image_pull_secrets == ("one", "two")
    assert spec.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists"},)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("workers: 0", "job.workers: 0", "at least 1"),
        ("workers: 2.5", "job.workers: 2.5", "a whole number"),
        ("workers: true", "job.workers: True", "a number"),
        ("gpus: .inf", "job.gpus: inf", "a number"),
        ("image: 'repo:5000/train'", "job.image: repo:5000/train", "with its version or digest"),
        ("image_pull_policy: never", "job.image_pull_policy: never", "'Never'"),
        ("image_pull_secrets: one", "job.image_pull_secrets: one", "tuple"),
        ("image_pull_secrets: [a b]", "job.image_pull_secrets.0: a b", "small letters"),
        ("queue: User Queue", "job.queue: User Queue", "at most 63 letters"),
        (f"queue: {'q' * 64}", "job.queue", "at most 63 letters"),
        ("volumes: {My Claim: /x}", "My Claim", "small letters"),
        ("node_selector: {zone: eu west}", "job.node_selector.zone: eu west", "no blanks"),
        ("node_selector: {a b: c}", "a b", "no blanks"),
        ("gpu_resource: a b", "job.gpu_resource: a b", "no blanks"),
        ("runtime: Torch", "job.runtime: Torch", "small letters"),
        ("cpu: 4Gi", "job.cpu: 4Gi", "cores such as 2 or 500m"),
        ("{memory: 4Gi, shared_memory: 5Gi}", "job.shared_memory: 5Gi", "which is 4Gi"),
        ("memory: 8GB", "job.memory: 8GB", "such as 2 or 8Gi"),
        ("volumes: {citeflow-data: mnt}", "job.volumes", "claim: /path"),
        ("volumes: {a: /x, b: /x}", "job.volumes", "each path once"),
        ("volumes: {a: /dev/shm}", "job.volumes", "claim: /path"),
        ("node_selector: {spot: true}", "job.node_selector.spot: True", "string"),
        ("tolerations: [spot]", "job.tolerations.0 must hold keys and values: spot", ""),
        ("unschedulable_minutes: 0", "job.unschedulable_minutes: 0", "above 0"),
        ("deadline_hours: 0", "job.deadline_hours: 0", "above 0"),
        ("deadline_hours: .nan", "job.deadline_hours: nan", "a number"),
        ("worker: 3", "unknown setting: job.worker", "did you mean workers"),
        ("2: 3", "unknown setting: job.2", "one of workers"),
        ("[1, 2]", "job must hold keys and values: list", ""),
        ("!!python/object:os.system {}", "job is not YAML", ""),
    ],
)
def test_from_yaml_names_the_wrong_field(text, what, hint):
    with pytest.raises(ConfigError) as told:
        from_yaml(text)
    assert what in str(told.value).splitlines()[0]
    assert hint in told.value.hint
    assert told.value.exit_code == 64


@given(key=st.sampled_from(sorted(JobSpec.model_fields)) | st.text(max_size=9), value=ANYTHING)
def test_from_yaml_returns_a_spec_or_an_error(key, value):
    text = yaml.safe_dump({key: value}, allow_unicode=True)
    with contextlib.suppress(ConfigError):
        spec = from_yaml(text)
        assert from_yaml(to_yaml(spec)) == spec


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("500m", 0.5),
        ("8Gi", 8 * 2**30),
        ("1.5Gi", 1.5 * 2**30),
        ("8G", 8e9),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1Ti", 2**40),
        ("1e3", 1000),
        ("2E2", 200),
        ("1E", 1e18),
    ],
)
def test_quantity_is_read_as_kubernetes_does(text, value):
    assert float(quantity(text)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-1", "8gb", "Gi", "1_0", " 8", "8Gi\n", "nan", "Infinity"])
def test_quantity_refuses_other_text(text):
    with pytest.raises(ValueError, match="quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("folder", "is_seen"),
    [
        ("/mnt/citeflow", True),
        ("/mnt/citeflow/runs/a", True),
        ("/b/runs", True),
        ("/mnt", False),
        ("/mnt/citeflow2/runs", False),
        ("/", False),
    ],
)
def test_check_mounted_looks_for_a_volume(folder, is_seen):
    spec = JobSpec(volumes={"citeflow-data": "/mnt/citeflow", "b": "/b"})
    if is_seen:
        check_mounted(spec, Path(folder))
        return
    with pytest.raises(ConfigError, match="do not see the folder") as caught:
        check_mounted(spec, Path(folder))
    assert caught.value.value == folder
    assert "/mnt/citeflow, /b" in caught.value.hint
