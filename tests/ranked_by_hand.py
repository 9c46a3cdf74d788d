"""Rankings of held-out citations, source by source."""

import numpy as np

from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import PaperRows, build_structural_features, score_candidates


def hard_mrr(model, graph):
    """Validation MRR among the hard candidates of each source that has any."""
    structural = build_structural_features(graph, model.config)
    rows = PaperRows(embed_all(model, graph), structural)
    reciprocals = []
    for source, target in zip(graph.valid.source_P, graph.valid.target_P, strict=True):
        if source not in graph.hard.source_S:
            continue
        index = graph.hard.source_S.tolist().index(source)
        candidate_1K = np.append(target, graph.hard.candidates.row(index))[None]
        score_K = score_candidates(model, rows, np.array([source]), candidate_1K)[0]
        better = (score_K[1:] > score_K[0]).sum() + (score_K[1:] == score_K[0]).sum() / 2
        reciprocals.append(1 / (1 + better))
    return np.mean(reciprocals)
