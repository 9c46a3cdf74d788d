"""The real worker, with the faults that a plan in the environment gives it.

Every event is a line of a file: `began` its first step (with the number of the run's attempt),
`fired` a fault, `left` for ever (with its exit code).
"""

import ctypes
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from citeflow import files
from citeflow.tasks.citation_objective import Objective
from citeflow.tasks.citation_training import LinkPrediction
from citeflow.training import trainer, worker
from citeflow.training.distributed import Group
from citeflow.training.trainer import Trainer

VARIABLE = "DISTURBED_WORKER"
POINTS = {
    "step": (Trainer, "train_step"),
    "agree": (Group, "all_reduce_in_step"),
    "update": (torch.optim.Adam, "step"),
    "evaluate": (Trainer, "validate"),
    "save": (files, "write_manifest"),
    "calibrate": (LinkPrediction, "finish"),
}
"""Functions before which a fault can fire; in a save everything but the manifest is written then.
"""


def hold_lock(seconds):
    """Keep the interpreter's lock, so that no other thread runs."""
    while seconds:  # a signal ends a sleep early
        seconds = ctypes.PyDLL(None).sleep(int(seconds))


def fail(_):
    raise RuntimeError("planned")


FAULTS = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "freeze": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "pause": time.sleep,
    "hold lock": hold_lock,
    "fail": fail,
}


class Disturbance:
    """The part of the plan for this worker, and the step of its training."""

    def __init__(self, events, faults):
        self.events = Path(events)
        self.step = None
        self.has_begun = False
        self.rank = int(os.environ["RANK"])
        self.attempt = 1 + int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        mine = [fault for fault in faults if fault["rank"] in (self.rank, None)]
        self.faults = [fault for fault in mine if fault["attempt"] in (self.attempt, None)]

    def note(self, event, **facts):
        """Append a line to the file of events, which all workers write to."""
        line = {"event": event, "rank": self.rank, "attempt": self.attempt, "pid": os.getpid()}
        line |= {"step": self.step, "at": time.monotonic(), **facts}
        with self.events.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def due(self, point, step=None):
        """Yield the faults planned for this point and step, by default that of the training."""
        for fault in self.faults:
            if fault["at"] == point and fault["step"] in (step or self.step, None):
                self.note("fired", what=fault["what"], point=point)
                yield fault

    def fire(self, point, step=None):
        for fault in self.due(point, step):
            FAULTS[fault["what"]](fault["seconds"])

    def before(self, point):
        """Fire the faults of a point before its function."""
        module, name = POINTS[point]
        function = getattr(module, name)

        @functools.wraps(function)
        def disturbed(*args, **kwargs):
            if point in ("step", "evaluate"):
                self.step = args[0].progress.step
            if point == "step" and not self.has_begun:
                self.note("began", number=args[0].lease.number)
                self.has_begun = True
            # A checkpoint is written on a thread, while the training goes on.
            self.fire(point, kwargs["facts"].get("step") if point == "save" else None)
            return function(*args, **kwargs)

        setattr(module, name, disturbed)

    def spoil(self):
        """Make the loss of a step, or its gradients alone, NaN."""
        forward = Objective.forward

        def spoiled(objective, inputs):
            loss = forward(objective, inputs)
            if not self.has_begun:  # the pass before the first step, whose gradients are dropped
                return loss
            for fault in self.due("loss"):
                is_loss = fault["what"] == "spoil loss"
                loss = loss * torch.nan if is_loss else loss + torch.sqrt(0 * loss)
            return loss

        Objective.forward = spoiled


preload = worker.preload


def main():
    disturbance = Disturbance(**json.loads(os.environ[VARIABLE]))
    for point in POINTS:
        disturbance.before(point)
    disturbance.spoil()
    trainer.RECORD_EVERY_S = 0  # so that every step can be compared
    disturbance.fire("start")
    try:
        worker.main()
    finally:
        disturbance.note("left", code=getattr(sys.exc_info()[1], "code", 0))


if __name__ == "__main__":
    main()
