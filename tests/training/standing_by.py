"""Standbys of workers that only meet, and what becomes of them: `standing_by.py FOLDER SCENARIO`.

Each worker notes (rank, start) when it has met the others. What it does then is the
scenario's part for its rank and start: "end", "kill", "lost", "fail", "wait" or "compute".
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from citeflow.training import standby
from citeflow.training.handover import Handover
from citeflow.training.preemption import LOST_PEER, PreemptionHandler


def work():
    seat = standby.seat()
    acts = SCENARIO[str(seat.rank)]
    act = acts[min(seat.start, len(acts) - 1)]
    if act == "kill before":
        os.kill(os.getpid(), signal.SIGKILL)
    seat.meet()
    note = {"rank": seat.rank, "start": seat.start}
    with (FOLDER / f"met-{seat.rank}").open("a") as stream:
        stream.write(json.dumps(note) + "\n")
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "lost":
        raise SystemExit(LOST_PEER)
    if act == "fail":
        raise SystemExit(64)
    if act == "compute":
        PreemptionHandler()
        time.sleep(60)


if __name__ == "__main__":
    FOLDER, SCENARIO = Path(sys.argv[1]), json.loads(sys.argv[2])
    standby.stand_by(work, [Handover()])
