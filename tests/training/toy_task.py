"""A task that trains in milliseconds: a regression on numbers drawn from seed, step and rank.

It is also the smallest second task: what it needs of citeflow is the protocol and nothing else.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from citeflow.config import TrainConfig
from citeflow.tasks.names import Names

STEPS_PER_EPOCH = 16
SAMPLES_PER_STEP = 8


@dataclass
class ToyBatch:
    x: torch.Tensor

    @property
    def num_samples(self):
        return len(self.x)

    def to(self, device):
        return self


class ToyObjective(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return (self.model(batch.x).squeeze(1) - batch.x.sum(dim=1)).square().mean()


class ToyTrainable:
    """A regression; its score is `scores` in turn, or grows with each validation."""

    steps_per_epoch = STEPS_PER_EPOCH
    samples_per_epoch = STEPS_PER_EPOCH * SAMPLES_PER_STEP

    def __init__(self, task, group):
        torch.manual_seed(task.train.seed)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        self.objective = ToyObjective(self.model)
        self.task = task
        self.rank = group.rank
        self.finished = False

    def make_batch(self, step):
        self.task.on_batch(step)
        seed = (self.task.train.seed * 10_007 + step) * 101 + self.rank
        generator = torch.Generator().manual_seed(seed)
        return ToyBatch(torch.randn(SAMPLES_PER_STEP, 4, generator=generator))

    def validate(self):
        self.task.on_validate(self.model)
        weight = next(self.model.parameters())
        score = (
            float(weight.detach().abs().mean())
            if self.task.scores is None
            else next(self.task.scores)
        )
        return {"valid_r2": score * 10, "valid_seen": 10.0}, 10

    def finish(self):
        self.finished = True

    def save(self, folder, result):
        self.task.saved = (folder, result)


def nothing(*_):
    """Do nothing."""


@dataclass
class OpenToyTask:
    train: TrainConfig
    names = Names(score="valid_r2", metric="R²", samples="points")
    scores: object = None
    on_batch: object = nothing
    on_validate: object = nothing
    digests: dict = field(default_factory=dict)
    saved: object = None

    def inputs(self, world_size):
        return {"workers": world_size, **self.digests}

    def begin(self, group):
        return ToyTrainable(self, group)


class ToyTask:
    """The task, as `citeflow.tasks.TASKS` would hold it."""

    name = "toy"
    memory_hint = "use less"

    def __init__(self):
        self.opened = None

    def open(self, data, settings, *, data_root=None):
        self.opened = OpenToyTask(TrainConfig(**settings["train"]))
        return self.opened

    def memory_needed(self, data, settings, workers, *, allowed=None):
        return 2**60
