"""Reads the Dockerfile and the locks as far as the tests beside this file ask."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

IMAGES = ("train", "step", "serve", "small", "tensorboard", "ray")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def argv(self):
        return json.loads(self.text)


def file(checkout: Path) -> Path:
    """The Dockerfile of all images."""
    return checkout / "docker" / "Dockerfile"


def instructions(checkout: Path) -> list[Instruction]:
    """All instructions of the Dockerfile, in order."""
    lines = [
        line
        for line in file(checkout).read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name=name, text=text.strip()) for name, text in pairs]


def stages(checkout: Path) -> dict[str, tuple[str, list[Instruction]]]:
    """What each stage stands on, and its own instructions, by its name."""
    found: dict[str, tuple[str, list[Instruction]]] = {}
    for each in instructions(checkout):
        if each.name == "FROM":
            below, name = each.text.split(" AS ")
            found[name] = (below, [])
        elif found:
            found[name][1].append(each)
    return found


def of_image(checkout: Path, image: str) -> list[Instruction]:
    """All instructions that make an image, those of the stages that it stands on before its own."""
    every = stages(checkout)
    below, own = every[image]
    return [*(of_image(checkout, below) if below in every else []), *own]


def last(checkout: Path, image: str, name: str) -> Instruction:
    """The instruction of that name that holds for the image."""
    return [instruction for instruction in of_image(checkout, image) if instruction.name == name][
        -1
    ]


def environment(checkout: Path, image: str) -> dict[str, str]:
    """What ENV sets."""
    words = [
        word
        for each in of_image(checkout, image)
        if each.name == "ENV"
        for word in shlex.split(each.text)
    ]
    return dict(word.split("=", 1) for word in words)


def lock(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by the name of the package."""
    entries = re.findall(
        r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", path.read_text(), re.M
    )
    return {
        canonicalize_name(name): (version, re.findall(r"\w{64}", hashes))
        for name, version, hashes in entries
    }
