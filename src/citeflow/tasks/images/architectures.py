"""The networks of the image task, by name; plain records, so that settings need no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Parts of a network."""

    uses_batch_norm: bool = False
    uses_dropout: bool = False
    is_residual: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "plain": Architecture(),
    "dropout": Architecture(uses_dropout=True),
    "batch_norm": Architecture(uses_batch_norm=True),
    "resnet": Architecture(uses_batch_norm=True, is_residual=True),
}
