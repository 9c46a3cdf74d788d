"""The state that a worker hands over when it ends because others are lost.

After a step all ranks have the same state. So it is enough if one of them is left to hand it over,
and no step is done again; the checkpoint is read where all of them are lost.
"""

import hashlib
import json
import os

from citeflow.training.checkpoint import SavedState
from citeflow.utils.logging import log


class Handover:
    """Anonymous memory for one state, which lives as long as the process that has made it."""

    def __init__(self) -> None:
        """Make room that the processes which are forked from this one have as well."""
        self._file = os.memfd_create("citeflow-state")

    def leave(self, state: SavedState) -> None:
        """Leave a state in place of the one before; where there is no room for it, none is left."""
        content = state.progress + state.tensors
        header = json.dumps(
            {
                "step": state.step,
                "validations": state.validations,
                "progress": len(state.progress),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ).encode()
        try:
            os.ftruncate(self._file, 0)
            written = os.pwrite(self._file, header + b"\n" + content, 0)
        except OSError as error:
            log("train", "could not hand over its state", why=error.strerror)
        else:
            log("train", "hands over its state", step=state.step, bytes=written)

    def find(self) -> SavedState | None:
        """Return the state that was left; None if there is none, or it is damaged."""
        size = os.fstat(self._file).st_size
        header, _, content = os.pread(self._file, size, 0).partition(b"\n")
        if not header:
            return None
        try:
            facts = json.loads(header)
            if hashlib.sha256(content).hexdigest() != facts["sha256"]:
                raise ValueError("another digest")
        except (ValueError, KeyError) as error:
            log("train", "a state that was handed over is damaged", why=error)
            return None
        return SavedState(
            step=facts["step"],
            validations=facts["validations"],
            progress=content[: facts["progress"]],
            tensors=content[facts["progress"] :],
        )
