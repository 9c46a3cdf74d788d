"""Joining the ranks: on GPUs only where every rank has one."""

import pytest
import torch

from citeflow.training import group


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_ranks_that_outnumber_the_gpus_meet_on_the_cpu(monkeypatch, num_gpus):
    began = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(group.dist, "init_process_group", lambda backend, timeout: began.append(backend))
    monkeypatch.setattr(group.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(group.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(group.dist, "destroy_process_group", lambda: began.append("left"))
    with group.joined() as joined:
        assert joined.device.type == "cpu"
    assert began == ["gloo", "left"]
