"""What a training asks of a cluster, as text."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
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
    image_pull_secrets=st.lists(NAMES, max_size=3).map(tuple),
    cpu=CORES,
    memory=MEMORY,
    shared_memory=st.sampled_from(["1k", "0.5k", "1000"]),
    gpus=st.integers(0, 8),
    gpu_resource=NAMES,
    volumes=st.sets(CLAIMS, max_size=3).map(lambda names: {name: f"/on/{name}" for name in names}),
    node_selector=st.dictionaries(
        NAMES, NAMES | st.sampled_from(["true", "null", "1e3", "~", "2026-01-01"])
    ),
    tolerations=st.lists(TOLERATION, max_size=2).map(tuple),
    queue=NAMES | st.just(""),
    deadline_hours=HOURS,
    keep_hours=HOURS | st.just(0.0),
    restarts=st.integers(0, 100),
    runtime=NAMES,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(spec=SPECS)
def test_the_text_of_a_spec_gives_it_back(spec):
    assert from_yaml(to_yaml(spec)) == spec


def test_no_text_asks_for_the_defaults():
    assert (
        from_yaml("")
        == from_yaml("null")
        == from_yaml("{}")
        == from_yaml("# nothing\n")
        == JobSpec()
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(JobSpec)])
def test_a_setting_without_a_value_is_left_at_its_default(name):
    assert from_yaml(f"{name}:") == from_yaml(f"{name}: null") == JobSpec()


def test_what_the_text_leaves_out_is_taken_from_the_caller():
    spec = from_yaml("{cpu: 4}", workers=7, image="mine:1", cpu="2")
    assert (spec.cpu, spec.workers, spec.image) == ("4", 7, "mine:1")


def test_numbers_and_texts_are_read_as_people_write_them():
    text = """
        workers: "3"
        cpu: 0.5
        memory: 2000000000
        deadline_hours: 1e-1
        keep_hours: 2
        gpus: 1.0
        volumes: {citeflow-data: /mnt/citeflow, 7: /seven}
        node_selector: {cloud.google.com/gke-spot: true, zone: 4}
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
        ("workers: 0", "job.workers: 0", "1 to 10000"),
        ("workers: -2", "job.workers: -2", "1 to 10000"),
        ("workers: 10001", "job.workers: 10001", "1 to 10000"),
        ("workers: 2.5", "job.workers: 2.5", "a whole number"),
        ("workers: two", "job.workers: two", "a whole number"),
        ("workers: true", "job.workers: True", "a whole number"),
        ("workers: [2]", "job.workers: [2]", "a whole number"),
        ("gpus: -1", "job.gpus: -1", "0 or more"),
        ("gpus: .nan", "job.gpus: nan", "a whole number"),
        ("gpus: .inf", "job.gpus: inf", "a whole number"),
        ("image: ''", "job.image", "with its version or digest"),
        ("image: citeflow-train", "job.image: citeflow-train", "with its version or digest"),
        ("image: 'repo:5000/train'", "job.image: repo:5000/train", "with its version or digest"),
        (
            "image: 'repo/citeflow-train:latest'",
            "job.image: repo/citeflow-train:latest",
            "not :latest",
        ),
        (
            "image_pull_policy: Sometimes",
            "job.image_pull_policy: Sometimes",
            "IfNotPresent, Always, Never",
        ),
        ("image_pull_policy: never", "job.image_pull_policy: never", "IfNotPresent, Always, Never"),
        ("image_pull_secrets: one", "job.image_pull_secrets: one", "a list of names"),
        ("image_pull_secrets: [1]", "job.image_pull_secrets: [1]", "a list of names"),
        ("image_pull_secrets: {a: b}", "job.image_pull_secrets", "a list of names"),
        ("cpu: many", "job.cpu: many", "such as 2 or 8Gi"),
        ("cpu: 0", "job.cpu: 0", "such as 2 or 8Gi"),
        ("cpu: -1", "job.cpu: -1", "such as 2 or 8Gi"),
        ("cpu: [1]", "job.cpu: [1]", "a text"),
        ("queue: {a: b}", "job.queue", "a text"),
        ("image: [a]", "job.image", "a text"),
        ("runtime: true", "job.runtime: True", "a text"),
        ("cpu: 8Gi", "job.cpu: 8Gi", "cores such as 2 or 500m"),
        ("{memory: 4Gi, shared_memory: 5Gi}", "job.shared_memory: 5Gi", "which is 4Gi"),
        ("memory: 8GB", "job.memory: 8GB", "such as 2 or 8Gi"),
        ("memory: 8 Gi", "job.memory: 8 Gi", "such as 2 or 8Gi"),
        ("memory: 8gi", "job.memory: 8gi", "such as 2 or 8Gi"),
        ("shared_memory: ''", "job.shared_memory", "such as 2 or 8Gi"),
        ("volumes: {citeflow-data: mnt}", "job.volumes", "claim: /path"),
        ("volumes: {citeflow-data: }", "job.volumes", "claim: /path"),
        ("volumes: {a: /x, b: /x}", "job.volumes", "each once"),
        ("volumes: {a: /tmp}", "job.volumes", "claim: /path"),
        ("volumes: {a: /dev/shm}", "job.volumes", "claim: /path"),
        ("volumes: {a: '/x:y'}", "job.volumes", "claim: /path"),
        ("volumes: {a: /}", "job.volumes", "claim: /path"),
        ("volumes: [citeflow-data]", "job.volumes: ['citeflow-data']", "keys and values"),
        ("volumes: /mnt", "job.volumes: /mnt", "keys and values"),
        ("node_selector: spot", "job.node_selector: spot", "keys and values"),
        ("tolerations: {key: a}", "job.tolerations", "a list of keys and values"),
        ("tolerations: [spot]", "job.tolerations: ['spot']", "a list of keys and values"),
        ("deadline_hours: 0", "job.deadline_hours: 0.0", "above 0"),
        ("deadline_hours: 8761", "job.deadline_hours: 8761.0", "at most a year"),
        ("deadline_hours: tomorrow", "job.deadline_hours: tomorrow", "a number"),
        ("deadline_hours: .nan", "job.deadline_hours: nan", "a number"),
        ("keep_hours: -1", "job.keep_hours: -1.0", "0 to a year"),
        ("restarts: -1", "job.restarts: -1", "0 or more"),
        ("worker: 3", "unknown setting: job.worker", "did you mean workers"),
        ("memroy: 3Gi", "unknown setting: job.memroy", "did you mean memory"),
        ("nodeSelector: {}", "unknown setting: job.nodeSelector", "did you mean node_selector"),
        ("zzz: 1", "unknown setting: job.zzz", "one of workers, image"),
        ("2: 3", "unknown setting: job.2", "one of workers"),
        ("[1, 2]", "job must hold keys and values: list", "{cpu: 4, memory: 16Gi}"),
        ("[]", "job must hold keys and values: list", "{cpu: 4, memory: 16Gi}"),
        ("0", "job must hold keys and values: int", "{cpu: 4, memory: 16Gi}"),
        ("''", "job must hold keys and values: str", "{cpu: 4, memory: 16Gi}"),
        ("false", "job must hold keys and values: bool", "{cpu: 4, memory: 16Gi}"),
        ("four cores", "job must hold keys and values: str", "{cpu: 4, memory: 16Gi}"),
        ("{cpu: 4", "job is not YAML", ""),
        ("\t- a: b: c", "job is not YAML", ""),
        ("queue: 2026-99-99", "job is not YAML", ""),
        ("!!python/object:os.system {}", "job is not YAML", ""),
        ("a: 1\n--- \nb: 2", "job is not YAML", ""),
    ],
)
def test_a_wrong_value_is_told_with_what_would_fit(text, what, hint):
    with pytest.raises(ConfigError) as told:
        from_yaml(text)
    assert what in str(told.value).splitlines()[0]
    assert hint in told.value.hint
    assert told.value.exit_code == 64


@given(
    key=st.sampled_from([field.name for field in dataclasses.fields(JobSpec)])
    | st.text(max_size=9),
    value=ANYTHING,
)
def test_any_value_gives_a_spec_or_an_error_to_tell(key, value):
    text = yaml.safe_dump({key: value}, allow_unicode=True)
    with contextlib.suppress(ConfigError):
        spec = from_yaml(text)
        assert from_yaml(to_yaml(spec)) == spec


def test_a_spec_made_in_code_is_checked_as_well():
    with pytest.raises(ConfigError, match="workers"):
        JobSpec(workers=0)
    with pytest.raises(ConfigError, match="cpu"):
        dataclasses.replace(JobSpec(), cpu="none")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("500m", 0.5),
        ("1500m", 1.5),
        ("8Gi", 8 * 2**30),
        ("8G", 8e9),
        ("1.5Gi", 1.5 * 2**30),
        ("64Mi", 64 * 2**20),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1T", 1e12),
        ("1Ti", 2**40),
        ("", 0),
        ("-1", 0),
        ("8gb", 0),
        ("8K", 0),
        ("Gi", 0),
        (".5", 0),
        ("1.", 0),
        ("1e3", 0),
        ("8Gi ", 0),
        ("8Gi\n", 0),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it_and_anything_else_is_none(text, value):
    assert quantity(text) == pytest.approx(value)


def test_every_gpu_has_a_process_and_a_pod_without_one_has_a_single_process():
    assert (JobSpec(workers=3).processes, JobSpec(workers=3).world_size) == (1, 3)
    assert (JobSpec(workers=3, gpus=4).processes, JobSpec(workers=3, gpus=4).world_size) == (
        4,
        12,
    )


@pytest.mark.parametrize("folder", ["/mnt/citeflow", "/mnt/citeflow/runs/a", "/mnt/citeflow/"])
def test_a_folder_on_a_volume_of_the_pods_is_seen_by_them(folder):
    check_mounted(JobSpec(), Path(folder))


@pytest.mark.parametrize(
    "folder", ["/mnt", "/mnt/citeflow2/runs", "/", "/home/me/citeflow-data/runs/a"]
)
def test_a_folder_elsewhere_is_refused_with_where_it_should_be(folder):
    with pytest.raises(ConfigError, match="do not see the folder") as told:
        check_mounted(JobSpec(), Path(folder))
    assert told.value.value == folder
    assert "/mnt/citeflow" in told.value.hint


def test_any_of_several_volumes_will_do():
    spec = JobSpec(volumes={"a": "/a", "b": "/b"})
    check_mounted(spec, Path("/b/runs"))
    with pytest.raises(ConfigError, match="/c/runs") as told:
        check_mounted(spec, Path("/c/runs"))
    assert "/a, /b" in told.value.hint
