"""Kill a worker during training, and compare the model with that of an undisturbed training.

`python examples/fault_tolerance/run.py [--workers 2] [--out DIR]` trains twice on a graph that is
made on the spot: once undisturbed, and once with SIGKILL for a worker at 45 % of the steps. The
others hand over their state and end, new ones go on from there, and the model is the same to the
bit. The exit code is 1 where it is not. A minute on two cores.
"""

import argparse
import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

import psutil
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

SETTINGS = (
    "synthetic.num_papers=3000",
    "data.eval_negatives=100",
    "data.holdout=0.1",
    "model.hidden_channels=64",
    "train.nodes_per_batch=500",
    "train.epochs=12",
    "train.num_validations=12",
    "recovery.checkpoint_steps=20",
)
KILL_AT = 0.45
"""Share of the steps that are done when the worker is killed."""

TIMEOUT_S = 900


@dataclass
class Attempt:
    """What one start of the workers wrote into TensorBoard's logs."""

    seconds: list[float]
    step: list[int]
    valid_step: list[int]
    valid_mrr: list[float]


@dataclass
class Kill:
    """When a worker was killed, and when the others were gone."""

    killed: float
    noticed: float


def citeflow(*arguments: str) -> list[str]:
    """Return a command line of citeflow."""
    return [sys.executable, "-m", "citeflow", *arguments]


def stage(root: Path, settings: list[str], *arguments: str) -> Path:
    """Run one stage to its end; return the folder that it made."""
    command = citeflow(*arguments, "--data-root", str(root), *settings)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_S)
    return Path(json.loads(done.stdout)["path"])


def train(command: list[str], checkpoints: Path, kill_at: int | None) -> tuple[Path, Kill | None]:
    """Train a model, and kill a worker once there is a checkpoint of the step `kill_at`."""
    kill = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if kill_at is not None:
            kill = kill_worker(process, checkpoints, kill_at)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode:
        sys.exit(process.returncode)
    return Path(json.loads(output)["path"]), kill


def kill_worker(process: "subprocess.Popen[str]", checkpoints: Path, step: int) -> Kill | None:
    """Send SIGKILL to rank 1 after a step, and wait until the other workers are gone."""
    while newest_step(checkpoints) < step:
        if process.poll() is not None:
            return None
        time.sleep(0.02)
    workers = workers_of(process.pid)
    if 1 not in workers:
        return None
    killed = time.time()
    workers[1].send_signal(signal.SIGKILL)
    psutil.wait_procs(list(workers.values()), timeout=60)
    return Kill(killed, time.time())


def newest_step(checkpoints: Path) -> int:
    """Return the step of the newest checkpoint; 0 where there is none."""
    steps = [int(path.name.partition("-")[2]) for path in checkpoints.glob("step-*")]
    return max(steps, default=0)


def workers_of(pid: int) -> dict[int, psutil.Process]:
    """Return the ranks that train below a process, by the names that they give themselves."""
    workers = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            name, _, rank = process.name().partition(" ")
        except psutil.Error:
            continue
        if name == "rank":
            workers[int(rank)] = process
    return workers


def read_attempts(logs: Path, began: float) -> list[Attempt]:
    """Read what each start of the workers logged, steps that a later one took again included."""
    attempts = []
    for path in sorted(logs.glob("events.*")):
        attempt = Attempt([], [], [], [])
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.tensor.float_val[0] if value.tensor.float_val else 0.0
                if value.tag == "train/loss":
                    attempt.seconds.append(event.wall_time - began)
                    attempt.step.append(event.step)
                elif value.tag == "valid/mrr":
                    attempt.valid_step.append(event.step)
                    attempt.valid_mrr.append(number)
        if attempt.step:
            attempts.append(attempt)
    return attempts


def draw_page(undisturbed: Attempt, attempts: list[Attempt], killed_s: float, verdict: str) -> str:
    """Draw both trainings into one page."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (steps, scores) = pyplot.subplots(2, 1, figsize=(7, 7), layout="constrained")
    drawn = [(undisturbed, "undisturbed", {"color": "grey", "linewidth": 5, "alpha": 0.4})]
    names = ["until the kill", *["after the restart"] * (len(attempts) - 1)]
    drawn += [
        (attempt, name, {"marker": "."}) for attempt, name in zip(attempts, names, strict=True)
    ]
    for attempt, name, look in drawn:
        steps.plot(attempt.seconds, attempt.step, label=name, **look)
        scores.plot(attempt.valid_step, attempt.valid_mrr, label=name, **look)
    steps.axvline(killed_s, color="red", linestyle=":", label="SIGKILL")
    steps.set(xlabel="Seconds since the start", ylabel="Step")
    scores.set(xlabel="Step", ylabel="Validation MRR")
    steps.legend()
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    title = "A worker is killed"
    head = f"<!DOCTYPE html>\n<title>{title}</title>\n<h1>{title}</h1>\n"
    return f"{head}<p>{escape(verdict)}</p>\n{svg.getvalue()}"


def main() -> int:
    """Train twice and compare; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill a worker; the model is the same.")
    parser.add_argument("--workers", type=int, default=2, help="of each training; at least 2")
    parser.add_argument("--out", type=Path, default=Path("fault-tolerance"), help="a new folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    args = parser.parse_args()
    if args.workers < 2:
        parser.error("--workers must be at least 2: one is killed, the others notice")
    root = args.out.absolute() / "data"
    if root.exists():
        parser.error(f"{root} exists: a complete training would not be repeated")
    settings = [part for each in (*SETTINGS, *args.set) for part in ("--set", each)]

    raw = stage(root, settings, "download", "synthetic")
    graph = stage(root, settings, "preprocess", str(raw))
    command = citeflow("train", str(graph), "--workers", str(args.workers))
    command += ["--data-root", str(root), *settings, "--run-name"]
    first, _ = train([*command, "undisturbed"], root, None)
    (undisturbed,) = read_attempts(root / "logs" / "undisturbed", 0.0)
    undisturbed.seconds = [each - undisturbed.seconds[0] for each in undisturbed.seconds]
    kill_at = round(KILL_AT * undisturbed.step[-1])
    second, kill = train([*command, "killed"], root / "runs" / "killed" / "checkpoints", kill_at)
    attempts = read_attempts(root / "logs" / "killed", 0.0)
    if kill is None or len(attempts) < 2:
        sys.exit("the training ended before a worker was killed: run it again")

    began = attempts[0].seconds[0]
    for attempt in attempts:
        attempt.seconds = [each - began for each in attempt.seconds]
    digests = [
        hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
        for model in (first, second)
    ]
    last_start = max((root / "runs" / "killed" / "attempts").glob("*.json"))
    resumed = json.loads(last_start.read_text())["step"]
    is_equal = digests[0] == digests[1]
    result = "the same to the bit" if is_equal else "ANOTHER ONE"
    verdict = (
        f"One of {args.workers} workers was killed {kill.killed - began:.1f} s after the first "
        f"step was logged. The others had left {kill.noticed - kill.killed:.2f} s later; new "
        f"ones went on from step {resumed}. The model is {result}."
    )
    page = args.out / "faults.html"
    page.write_text(draw_page(undisturbed, attempts, kill.killed - began, verdict))
    print(verdict, *(f"sha256 {digest}" for digest in digests), page, sep="\n")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
