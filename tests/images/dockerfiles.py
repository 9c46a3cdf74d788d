"""Reads Dockerfiles and locks as far as the tests beside this file ask."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

IMAGES = ("train", "step", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def argv(self):
        return json.loads(self.text)


def instructions(path: Path) -> list[Instruction]:
    """All instructions of a Dockerfile, in order."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name=name, text=text.strip()) for name, text in pairs]


def last(path: Path, name: str) -> Instruction:
    """The instruction of that name that holds for the image."""
    return [instruction for instruction in instructions(path) if instruction.name == name][-1]


def environment(path: Path) -> dict[str, str]:
    """What ENV sets."""
    words = [word for each in instructions(path) if each.name == "ENV" for word in shlex.split(each.text)]
    return dict(word.split("=", 1) for word in words)


def lock(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by the name of the package."""
    entries = re.findall(r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", path.read_text(), re.M)
    return {canonicalize_name(name): (version, re.findall(r"\w{64}", hashes)) for name, version, hashes in entries}
