import copy

from fakes.operator import RECORDED
from kubernetes import client as k8s

from citeflow.kubernetes.job_status import PodStatus
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.oom import OomKills


def killed(*hours):
    """A pod that was killed for its memory at these hours, at most two of which it shows."""
    body = copy.deepcopy(RECORDED["oom_killed"])
    (container,) = body["status"]["containerStatuses"]
    end = container["state"]["terminated"]
    states = [
        {"terminated": {**end, "finishedAt": f"2026-11-28T{hour:02d}:00:00Z"}} for hour in hours
    ]
    container["lastState"], container["state"] = [{}, *states][-2:]
    with k8s.ApiClient() as api:
        return PodStatus.read(api._ApiClient__deserialize(body, "V1Pod"))


def test_kills_before_a_job_is_taken_over_are_not_those_of_the_newest_checkpoint(tmp_path):
    (tmp_path / "step-00000600").mkdir()
    kills = OomKills(launcher=LAUNCHERS["pytorchjob"], checkpoints=tmp_path)
    kills.update([killed(1, 5)])
    assert kills.killed_in_vain() == ""
    kills.update([killed(5, 6)])
    assert kills.killed_in_vain() == ""
    kills.update([killed(6, 7)])
    assert kills.killed_in_vain() == "worker-0"
