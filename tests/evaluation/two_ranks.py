"""One of two ranks that embed the same graphs: `two_ranks.py FOLDER` with torchrun's variables.

Each case runs twice: with both ranks on one machine, and with each on a machine of its own. Every
rank writes what it has at the end.
"""

import sys
from pathlib import Path

import numpy as np
from whole_graphs import graph_of, model_of

from citeflow.evaluation import inference
from citeflow.training.distributed import Group, init_group

CASES = {
    "no layer": (60, {"num_layers": 0}),
    "one layer": (60, {"num_layers": 1}),
    "two layers": (60, {}),
    "odd number of papers": (61, {}),
    "one paper": (1, {}),
}
CHUNK = 15


def main() -> None:
    folder = Path(sys.argv[1])
    inference.CHUNK = CHUNK
    with init_group() as one:
        two = Group(one.rank, one.world_size, one.device, local_world_size=1)
        for name, (num_papers, changes) in CASES.items():
            graph = graph_of(num_papers)
            for machines, group in (("one machine", one), ("two machines", two)):
                embedding_NH = inference.embed_all(model_of(graph, **changes), graph, group)
                group.barrier()
                np.save(folder / f"{name}-{machines}-{group.rank}.npy", embedding_NH.numpy())


if __name__ == "__main__":
    main()
