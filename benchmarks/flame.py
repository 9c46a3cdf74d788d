"""Draw where a rank spends a training step: a flame graph of Python and of what it calls.

    python benchmarks/flame.py PREPARED_GRAPH OUT.svg [--seconds 20] [--title TEXT]
        [--set SECTION.KEY=VALUE]

Trains with two workers, has py-spy (`pip install py-spy`) sample one of them once it takes steps,
and keeps the steps and the making of batches, which a thread does meanwhile. A box is a function;
its width is its share of the samples, and it stands on what called it. Of PyTorch, numpy and MKL
the operators are shown, and not what lies between them. An earlier commit is drawn by the same
file with `PYTHONPATH` set to its `src`.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import psutil

RATE_HZ = 50
WARM_UP_CPU_S = 6.0
"""CPU time after which a worker is past its imports and first steps."""

START_S = 120.0
"""Longest wait for that."""

ROOTS = {"Trainer.train_step": "training step", "make_batch": "make the next batch (a thread)"}
"""Functions in which the flames begin, by their names; the rest of the process is left out."""

WIDTH, ROW, LEFT, TOP, FONT = 1200, 18, 10, 64, 11
NARROWEST = 0.002
"""Share of all samples that a box must have."""

COLOURS = {
    "citeflow": ("#9ecae1", "citeflow"),
    "autograd": ("#c7b5de", "autograd"),
    "operator": ("#fdd0a2", "operators of PyTorch"),
    "numpy": ("#c7e9c0", "numpy"),
    "mkl": ("#fdae6b", "MKL"),
}


@dataclass
class Box:
    """A function where it was called."""

    kind: str
    samples: int = 0
    below: dict[str, "Box"] = field(default_factory=dict)


def main() -> None:
    """Train, sample and draw."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        stacks = Path(scratch) / "stacks.txt"
        if options.stacks:
            stacks = options.stacks
        else:
            _sample(options, Path(scratch), stacks)
        text = stacks.read_text()
    root = fold(text)
    options.out.write_text(draw(root, options.title))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("out", type=Path, help="the picture, .svg")
    parser.add_argument("--seconds", type=float, default=20, help="how long to sample")
    parser.add_argument("--title", default="A training step of one rank", help="of the picture")
    parser.add_argument("--stacks", type=Path, help="what py-spy wrote before, in place of a run")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    return parser.parse_args()


def _sample(options: argparse.Namespace, root: Path, stacks: Path) -> None:
    command = [sys.executable, "-m", "citeflow", "train", str(options.graph), "--workers", "2"]
    command += ["--run-name", "flame", "--data-root", str(root)]
    minutes = (options.seconds + START_S / 4) / 60
    for setting in (f"train.minutes={minutes}", "train.num_validations=1", *options.overrides):
        command += ["--set", setting]
    with (root / "training.log").open("w+") as log:
        training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            record = ["py-spy", "record", "--pid", str(_worker(training.pid)), "--native"]
            record += ["--rate", str(RATE_HZ), "--duration", str(round(options.seconds))]
            record += ["--format", "raw", "--output", str(stacks)]
            subprocess.run(record, check=True, timeout=options.seconds + 60)
            if training.wait(timeout=600):
                log.seek(0)
                raise SystemExit(log.read())
        finally:
            training.terminate()


def _worker(launcher: int) -> int:
    """Wait for a worker at its steps: the process below the launcher that has worked most."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        spent = {}
        for process in psutil.Process(launcher).children(recursive=True):
            try:
                spent[process.pid] = sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
        busiest = max(spent, key=lambda pid: spent[pid], default=None)
        if busiest is not None and spent[busiest] > WARM_UP_CPU_S:
            return busiest
        time.sleep(0.2)
    raise SystemExit("error: no worker has begun its steps")


def fold(text: str) -> Box:
    """Add up stacks, a line each: frames from the outermost, then the number of samples."""
    root = Box("citeflow")
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        names = [re.sub(r" \(.*", "", frame) for frame in frames]
        first = next((at for at, name in enumerate(names) if name in ROOTS), None)
        if first is None:
            continue
        path = [(ROOTS[names[first]], "citeflow"), *_shown(frames[first + 1 :])]
        _add(root, path, int(count))
    return root


def _add(root: Box, path: list[tuple[str, str]], count: int) -> None:
    root.samples += count
    box, before = root, ""
    for name, kind in path:
        if name == before:
            continue
        box = box.below.setdefault(name, Box(kind))
        box.samples += count
        before = name


def _shown(frames: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the frames that tell something, with the name and the kind of each."""
    in_numpy = False
    for frame in frames:
        name, _, place = frame.partition(" (")
        if place.startswith(("citeflow/", "<frozen citeflow")):
            yield re.sub(r"<locals>\.|\(.*", "", name), "citeflow"
            in_numpy = False
        elif operator := re.search(r"at::_ops::(\w+?)_?(_out|_Tensor|_Scalar)?::call", frame):
            yield operator[1].lstrip("_"), "operator"
        elif node := re.search(r"(\w+Backward\d+)::apply", frame):
            yield node[1], "autograd"
        elif name == "Tensor.backward":
            yield name, "autograd"
        elif name.startswith("mkl_blas"):
            yield "matrix product" if "gemm" in name else name, "mkl"
        elif name.startswith("mkl_sparse"):
            yield "sparse product", "mkl"
        elif name.startswith(("mkl_vml", "vms", "vmd")):
            yield "exp", "mkl"
        elif "numpy/" in place and ".so" in place and not in_numpy:
            yield name, "numpy"
            in_numpy = True


def draw(root: Box, title: str) -> str:
    """Draw boxes upon each other as SVG, the outermost at the bottom."""
    height = TOP + ROW * (_depth(root) + 1) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="DejaVu Sans, Verdana, sans-serif" font-size="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="16">{escape(title)}</text>',
        *_legend(),
    ]
    left = float(LEFT)
    for name, box in _ordered(root):
        parts += _boxes(name, box, left, height - 10 - ROW, root.samples)
        left += _wide(box, root.samples)
    return "\n".join([*parts, "</svg>\n"])


def _legend() -> Iterator[str]:
    left = LEFT
    for colour, label in COLOURS.values():
        yield f'<rect x="{left}" y="34" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{left + 17}" y="44">{label}</text>'
        left += 40 + 7 * len(label)


def _boxes(name: str, box: Box, left: float, y: float, total: int) -> Iterator[str]:
    share = box.samples / total
    if share < NARROWEST:
        return
    width = _wide(box, total)
    label = escape(f"{name}, {100 * share:.1f} %")
    colour = COLOURS[box.kind][0]
    yield (
        f'<g><title>{label}</title><rect x="{left:.1f}" y="{y}" width="{max(width - 0.6, 0.4):.1f}"'
        f' height="{ROW - 1}" fill="{colour}"/>'
    )
    room = int((width - 6) / (0.62 * FONT))
    if room >= 4:
        whole = f"{name} {100 * share:.0f} %"
        shown = whole if len(whole) <= room else name
        shown = shown if len(shown) <= room else f"{shown[: room - 1]}…"
        yield f'<text x="{left + 3:.1f}" y="{y + ROW - 6}">{escape(shown)}</text>'
    yield "</g>"
    for below, inner in _ordered(box):
        yield from _boxes(below, inner, left, y - ROW, total)
        left += _wide(inner, total)


def _ordered(box: Box) -> list[tuple[str, Box]]:
    return sorted(box.below.items(), key=lambda item: -item[1].samples)


def _wide(box: Box, total: int) -> float:
    return (WIDTH - 2 * LEFT) * box.samples / total


def _depth(box: Box) -> int:
    return max((1 + _depth(inner) for inner in box.below.values()), default=0)


if __name__ == "__main__":
    main()
