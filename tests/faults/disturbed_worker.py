"""A worker of a training in which something goes wrong, by a plan in the environment; else it is the real one.

Every event is a line of a file: `began` its first step (with the number of the run's attempt), `fired` a fault, `left`
for ever (with its exit code).
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
from citeflow.training import trainer, worker

VARIABLE = "DISTURBED_WORKER"
PLACES = {
    "step": (trainer, "_forward_backward"),
    "agree": (trainer, "_agree"),
    "update": (trainer, "_update"),
    "evaluate": (trainer, "_evaluate"),
    "save": (files, "write_manifest"),
    "calibrate": (worker, "calibrate"),
}
"""Functions before which a fault can fire; in a save all is written by then but the manifest."""


def hold_lock(seconds):
    """Let no other thread run Python."""
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
    """The part of the plan that is about this worker, and where its training is."""

    def __init__(self, events, faults):
        self.events, self.step, self.has_begun = Path(events), None, False
        self.rank, self.attempt = (
            int(os.environ["RANK"]),
            1 + int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
        )
        mine = [fault for fault in faults if fault["rank"] in (self.rank, None)]
        self.faults = [fault for fault in mine if fault["attempt"] in (self.attempt, None)]

    def note(self, event, **facts):
        """Add a line to the file of events, which all workers write to."""
        line = {
            "event": event,
            "rank": self.rank,
            "attempt": self.attempt,
            "pid": os.getpid(),
            "step": self.step,
        }
        with self.events.open("a") as stream:
            stream.write(json.dumps({**line, "at": time.monotonic(), **facts}) + "\n")

    def due(self, place):
        """The faults of here and now."""
        for fault in self.faults:
            if fault["place"] == place and fault["step"] in (self.step, None):
                self.note("fired", what=fault["what"], place=place)
                yield fault

    def fire(self, place):
        """Do what is planned for here and now."""
        for fault in self.due(place):
            FAULTS[fault["what"]](fault["seconds"])

    def before(self, place):
        """Put the faults of a place before its function."""
        module, name = PLACES[place]
        function = getattr(module, name)

        @functools.wraps(function)
        def disturbed(*args, **kwargs):
            if place in ("step", "evaluate"):
                self.step = args[0].progress.step
            if place == "step" and not self.has_begun:
                self.note("began", number=args[0].attempt.number)
                self.has_begun = True
            self.fire(place)
            return function(*args, **kwargs)

        setattr(module, name, disturbed)

    def spoil(self):
        """Let the loss of a step, or its gradients alone, be no numbers."""
        forward = trainer.Objective.forward

        def spoiled(objective, inputs):
            loss = forward(objective, inputs)
            for fault in self.due("loss"):
                loss = (
                    loss * torch.nan
                    if fault["what"] == "spoil loss"
                    else loss + torch.sqrt(0 * loss)
                )
            return loss

        trainer.Objective.forward = spoiled


def main():
    disturbance = Disturbance(**json.loads(os.environ[VARIABLE]))
    for place in PLACES:
        disturbance.before(place)
    disturbance.spoil()
    trainer.RECORD_EVERY_S = 0  # so that every step can be compared
    disturbance.fire("start")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        worker.is_torchrun = lambda process: True  # a test has started it, which stays as long
    try:
        worker.main()
    finally:
        disturbance.note("left", code=getattr(sys.exc_info()[1], "code", 0))


if __name__ == "__main__":
    main()
