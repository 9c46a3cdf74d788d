"""What training needs and may use: against peaks that were measured, and against folders that look like a cgroup."""

import psutil
import pytest

from citeflow import config
from citeflow.errors import TrainingError
from citeflow.evaluation import calibration, inference, scoring
from citeflow.models import tensors
from citeflow.training import memory, objective
from citeflow.utils import system

pytestmark = pytest.mark.fault("F14")

HEPTH, SMALL, MIDDLE, DENSE, LARGE, FULL = (
    (29_557, 50, 348_531),
    (5_000, 128, 51_697),
    (97_598, 128, 1_013_072),
    (30_000, 128, 1_196_653),
    (300_000, 128, 3_102_029),
    (2_927_963, 128, 30_394_643),
)
"""Papers, features and training citations; the first is hep-th, the others are synthetic, the last of the shape of
ogbl-citation2."""

SEED = "model.num_layers=5 model.predictor=dot train.loss=bce model.hidden_channels=256 train.nodes_per_batch=40000 model.features=ones"
PEAKS = [
    (SMALL, 1, "", 735),
    (HEPTH, 1, "", 899),
    (HEPTH, 2, "", 1260),
    (HEPTH, 4, "model.hidden_channels=32 train.nodes_per_batch=1000", 1974),
    (MIDDLE, 1, "model.hidden_channels=32 train.nodes_per_batch=2000 data.holdout=0.03", 853),
    (MIDDLE, 1, "train.nodes_per_batch=60000 data.holdout=0.03", 1040),
    (MIDDLE, 1, "train.num_negatives=1000 data.holdout=0.03", 1233),
    (MIDDLE, 1, "model.predictor=dot data.holdout=0.03", 984),
    (MIDDLE, 1, "model.predictor=mlp data.holdout=0.03", 1591),
    (MIDDLE, 1, f"{SEED} model.aggr=add model.normalize=true", 1565),
    (MIDDLE, 2, "model.hidden_channels=256 data.holdout=0.03", 1864),
    (MIDDLE, 2, "model.hidden_channels=512 train.nodes_per_batch=5000 data.holdout=0.03", 2382),
    (DENSE, 1, "", 1709),
    (DENSE, 2, "train.nodes_per_batch=3000", 2076),
    (LARGE, 1, "train.nodes_per_batch=50000", 1602),
    (LARGE, 2, "", 1976),
    (FULL, 2, "", 4928),
]
"""Graph, workers, settings, and the most MiB that all processes had together: private and shared memory, torch's code
and the mapped citations, read every 0.2 s from /proc/PID/smaps while they trained for some seconds and ended."""


@pytest.mark.parametrize(("graph", "workers", "settings", "peak"), PEAKS)
def test_the_estimate_is_within_a_fifth_of_a_measured_peak(graph, workers, settings, peak, figure):
    ratio = (
        memory.estimate(*graph, config.load(overrides=settings.split()), workers)
        / memory.MIB
        / peak
    )
    figure(peaks_compared=1, largest_error_of_estimate=abs(ratio - 1))
    assert 0.8 <= ratio <= 1.2


@pytest.mark.parametrize("less", ["train.nodes_per_batch=20000", "model.hidden_channels=32"])
def test_what_the_hint_names_needs_less(less, figure):
    large = "train.nodes_per_batch=60000"
    usual, small = (
        memory.estimate(*LARGE, config.load(overrides=each), 2) for each in ([large], [large, less])
    )
    figure(settings_that_lower_it=1)
    assert small < usual
    assert memory.estimate(*LARGE, config.load(overrides=[large]), 1) < usual


@pytest.mark.parametrize("predictor", ["structural", "dot", "mlp"])
def test_any_settings_have_an_estimate(predictor, figure):
    settings = config.load(
        overrides=[f"model.predictor={predictor}", "model.num_layers=0", "train.nodes_per_batch=2"]
    )
    figure(estimates_of_extremes=1)
    assert memory.estimate(2, 0, 1, settings, 1) > memory.WORKER


def test_the_estimate_knows_the_sizes_that_the_code_works_in(figure):
    assert memory.MEASURED == tensors.STATISTICS_SAMPLE
    assert memory.PIECE == inference.CHUNK
    assert memory.PAIRS == scoring.PAIRS
    assert memory.CALIBRATED == calibration.MAX_CITATIONS
    assert memory.STRUCTURAL_SOURCES == objective.STRUCTURAL_SOURCES
    figure(sizes_compared=5)


@pytest.fixture
def cgroup(tmp_path):
    """A folder with files as the kernel writes them, by their names."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".", 1)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


def test_the_limit_of_a_container_counts_and_without_one_the_machine(cgroup, figure):
    machine = psutil.virtual_memory().total
    assert system.memory_limit(cgroup()) == machine
    assert system.memory_limit(cgroup(memory_max="max\n")) == machine
    assert system.memory_limit(cgroup(memory_max=f"{2**60}\n")) == machine
    assert system.memory_limit(cgroup(memory_max="nonsense")) == machine
    assert system.memory_limit(cgroup(memory_max="536870912\n")) == 512 * memory.MIB
    figure(limits_read=5)


def test_the_limit_of_an_older_kernel_counts(cgroup, figure):
    machine = psutil.virtual_memory().total
    assert (
        system.memory_limit(cgroup(memory__memory_limit_in_bytes="9223372036854771712\n"))
        == machine
    )
    assert (
        system.memory_limit(cgroup(memory__memory_limit_in_bytes="1073741824\n"))
        == 1024 * memory.MIB
    )
    figure(limits_read=2)


def test_kills_by_the_kernel_are_counted_where_it_counts_them(cgroup, figure):
    assert system.oom_kills(cgroup()) == 0
    assert system.oom_kills(cgroup(memory__memory_oom_control="oom_kill_disable 0\n")) == 0
    assert system.oom_kills(cgroup(memory__memory_oom_control=CONTROL.format(2))) == 2
    assert system.oom_kills(cgroup(memory_events="nonsense\n")) == 2
    assert system.oom_kills(cgroup(memory_events=EVENTS.format(7))) == 7
    figure(counters_read=5)


def test_the_advice_is_one_line_with_both_figures_and_fits_an_error(figure):
    line = memory.advice(812 * memory.MIB, 512 * memory.MIB)
    assert line == "needs about 812 MiB, limit 512 MiB"
    told = str(TrainingError("out of memory", line, hint=memory.HINT)).splitlines()
    assert told[0] == "error: out of memory: needs about 812 MiB, limit 512 MiB"
    assert all(
        name in told[1]
        for name in ("train.nodes_per_batch", "model.hidden_channels", "fewer workers")
    )
    figure(message_present=1)
