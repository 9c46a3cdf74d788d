"""The registry of predictors, the choices of `model.predictor`.

A new predictor is a class like those of `decoders.py` and a line in `PREDICTORS`: nothing else asks
for a predictor by name. torch is not imported here, because the settings take their choices from
this, and the launcher its estimate of memory.
"""

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from citeflow.models.decoders import Decoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """Properties of a predictor that sampling, training and the estimate of memory depend on."""

    decoder: str
    """The class that scores pairs of embeddings, as `module:name`."""

    uses_structural_features: bool = False
    """Score a pair by its structural features, too."""

    max_negatives: int | None = None
    """Limit of `train.num_negatives`; None for none."""

    activations_per_pair: int = 0
    """Vectors of `model.hidden_channels` that a training step keeps for each pair."""

    def limit_negatives(self, num_negatives: int) -> int:
        """Return how many of these negatives a step can take."""
        return min(num_negatives, self.max_negatives or num_negatives)

    def load_decoder(self) -> "type[Decoder]":
        """Import the class of the decoder."""
        decoder: type[Decoder] = pkgutil.resolve_name(self.decoder)
        return decoder


PREDICTORS = {
    "dot": Predictor(decoder="citeflow.models.decoders:InnerProductDecoder"),
    # The MLP looks at every pair, a hundred times the work of a dot product; hence few negatives.
    "mlp": Predictor(
        decoder="citeflow.models.decoders:MLPDecoder", max_negatives=16, activations_per_pair=4
    ),
    "structural": Predictor(
        decoder="citeflow.models.decoders:InnerProductDecoder", uses_structural_features=True
    ),
}
"""Predictors by name."""
