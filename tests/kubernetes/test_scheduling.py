import datetime

import pytest

from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.scheduling import (
    REFUSED,
    Event,
    Node,
    last_words,
    mount_failure,
    too_large,
)

SMALL = Node(labels={}, allocatable={"cpu": "1930m", "memory": "8Gi"})
LARGE = Node(
    labels={"pool": "gpu"},
    allocatable={"cpu": "32", "memory": "4Gi", "nvidia.com/gpu": "8"},
)
NOON = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cpu": "1930m"}, ""),
        ({"cpu": "16", "memory": "4Gi"}, ""),
        ({"cpu": "64"}, "cpu 64 of at most 32"),
        ({"cpu": "16", "memory": "8Gi"}, "no single node has all of it"),
        ({"memory": "16Gi"}, "memory 16Gi of at most 8Gi"),
        ({"gpus": 9}, "nvidia.com/gpu 9 of at most 8"),
        ({"cpu": "64", "node_selector": {"pool": "none-yet"}}, ""),
        ({"memory": "8Gi", "node_selector": {"pool": "gpu"}}, "memory 8Gi of at most 4Gi"),
    ],
)
def test_too_large_names_what_not_even_an_empty_node_has(settings, expected):
    assert too_large(JobSpec(**settings), [SMALL, LARGE]) == expected
    assert too_large(JobSpec(**settings), []) == ""


def event(minutes, reason="FailedCreate"):
    seen = NOON + datetime.timedelta(minutes=minutes)
    return Event(reason=reason, message=f"Error creating: {minutes}", seen=seen)


def test_last_words_are_the_newest_of_this_job():
    events = [event(-9), event(5), event(2), event(8, "SuccessfulCreate")]
    assert last_words(events, REFUSED, NOON) == "5"
    assert last_words(events[:1], REFUSED, NOON) == ""


def test_mount_failure_is_over_once_the_image_is_pulled():
    failed = event(1, "FailedMount")
    assert mount_failure([failed], NOON) == failed.message
    assert mount_failure([failed, event(1, "Pulling")], NOON) == ""
    assert mount_failure([event(0, "Pulled"), failed], NOON) == failed.message
    assert mount_failure([event(-1, "FailedAttachVolume")], NOON) == ""
