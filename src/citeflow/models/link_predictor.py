"""The link predictor: an encoder of papers, a decoder of pairs, and a head for structural features.

Legend: H hidden channels, S sources, K candidates, P pairs, B papers, D structural features.
"""

from torch import Tensor, nn

from citeflow.config import ModelConfig
from citeflow.models.decoders import Decoder, StructuralHead
from citeflow.models.own import OwnEncoder
from citeflow.models.predictors import PREDICTORS
from citeflow.models.sage import GraphSAGE
from citeflow.models.tensors import at_least_float32


class LinkPredictor(nn.Module):
    """GraphSAGE, or an encoder of one's own, with the decoder that `model.predictor` names.

    Logits are float32, also where autocast multiplies matrices in less.
    """

    def __init__(
        self,
        num_features: int,
        num_structural: int,
        config: ModelConfig,
        *,
        scaled: bool,
        encoder: OwnEncoder | None = None,
    ) -> None:
        """Initialize the weights.

        Args:
            num_features: width of the encoder's input, F.
            num_structural: structural features of a pair, D.
            config: architecture.
            scaled: give dot products a learned scale, which a softmax needs.
            encoder: the one in place of GraphSAGE.
        """
        super().__init__()
        self.config = config
        predictor = PREDICTORS[config.predictor]
        self.encoder = encoder or GraphSAGE(num_features, config)
        self.predictor: Decoder = predictor.load_decoder()(config.hidden_channels, scaled=scaled)
        self.head = StructuralHead(num_structural) if predictor.uses_structural_features else None

    @property
    def uses_structural_features(self) -> bool:
        """Scores depend on the structural features of the pair."""
        return self.head is not None

    def score_embeddings(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score pairs by their embeddings alone.

        Args:
            source_SH: embeddings of the sources.
            target_SKH: of the candidates of each source, or [K, H] where all sources share them.

        Returns:
            Logits [S, K].
        """
        score_SK: Tensor = self.predictor(source_SH, target_SKH)
        return at_least_float32(score_SK)

    def score_pairs(
        self, source_SH: Tensor, source_index_P: Tensor, h_BH: Tensor, target_P: Tensor
    ) -> Tensor:
        """Score some pairs by their embeddings alone.

        Args:
            source_SH: embeddings of the sources.
            source_index_P: row of `source_SH` of each pair.
            h_BH: embeddings of the candidates.
            target_P: row of `h_BH` of each pair.

        Returns:
            Logits [P].
        """
        return at_least_float32(self.predictor.pairs(source_SH, source_index_P, h_BH, target_P))

    def add_structural_score(self, score: Tensor, structural_D: Tensor) -> Tensor:
        """Join scores of embeddings, of any shape, with the pairs' structural features [..., D]."""
        if self.head is None:
            return score
        joint_score: Tensor = self.head(score, structural_D)
        return at_least_float32(joint_score)
