"""One of two ranks that embed the same graphs together: `python two_ranks.py FOLDER`, with the variables of torchrun.

For each case there is one go in which both are on one machine, and one in which each is on a machine of its own.
Every rank leaves what it has at the end.
"""

import sys
from pathlib import Path

import numpy as np
from whole_graphs import graph_of, model_of

from citeflow.evaluation import inference
from citeflow.training.distributed import Group, joined

CASES = {
    "no layer": (60, {"num_layers": 0}),
    "one layer": (60, {"num_layers": 1}),
    "two layers": (60, {}),
    "odd number of papers": (61, {}),
    "one paper": (1, {}),
}
PIECE = 15


def main() -> None:
    folder = Path(sys.argv[1])
    inference.CHUNK = PIECE
    with joined() as together:
        apart = Group(together.rank, together.world_size, together.device, local_world_size=1)
        for name, (num_papers, changes) in CASES.items():
            graph = graph_of(num_papers)
            for where, group in (("together", together), ("apart", apart)):
                embedding_NH = inference.embed_all(model_of(graph, **changes), graph, group)
                group.sum(0)
                np.save(folder / f"{name}-{where}-{group.rank}.npy", embedding_NH.numpy())


if __name__ == "__main__":
    main()
