"""Files of lines that grow, read on from where they were left."""

from collections.abc import Sequence
from pathlib import Path

LOOK_BYTES = 4 << 20
"""Most of a file that is read at a time."""


class Tails:
    """The places up to which files were read."""

    def __init__(self) -> None:
        """Know none."""
        self._places: dict[Path, tuple[int, int]] = {}

    def lines(self, path: Path, after: int) -> Sequence[str]:
        """Return the lines of a file behind the first `after` ones, none where there is no file.

        A last line that is not whole yet is left out.
        """
        count, offset = self._places.get(path, (0, 0))
        if after != count:
            count, offset = 0, 0
        try:
            with path.open("rb") as file:
                file.seek(offset)
                text = file.read(LOOK_BYTES)
        except FileNotFoundError:
            return []
        # A line that is longer than what is read at a time is cut, or nothing came behind it.
        is_cut = len(text) == LOOK_BYTES and b"\n" not in text
        whole = text if is_cut else text[: text.rfind(b"\n") + 1]
        lines = whole.decode(errors="replace").splitlines()
        self._places[path] = (count + len(lines), offset + len(whole))
        return lines[after - count :]
