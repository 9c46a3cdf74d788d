"""The smallest pipeline that shows everything: no volume, no torch, and a result that is known."""

from kfp import dsl

from components.base import request_resources_without_volume
from components.xor_compare.component import xor_compare
from components.xor_plot.component import xor_plot
from components.xor_points.component import xor_points
from components.xor_train.component import xor_train


def _place(task: dsl.PipelineTask, title: str) -> None:
    request_resources_without_volume(
        task, title, cpu=("200m", "1"), memory=("256Mi", "1Gi"), cached=False
    )
    task.set_env_variable("OMP_NUM_THREADS", "1")  # as many as the limit, whatever the node has


@dsl.pipeline(name="xor", display_name="XOR")
def xor(
    dims: int = 2,
    train_points: int = 10_000,
    test_points: int = 1_000,
    epochs: int = 40,
    hidden: int = 32,
    lr: float = 0.02,
    seed: int = 0,
    out_dir: str = "",
) -> None:
    """Trains a model without and one with a hidden layer on XOR, which only the second can learn.

    Needs neither a volume nor a graph, and ends in under a minute, so that it shows whether an installation works.

    Args:
        dims: Coordinates of a point; two of them are plotted.
        train_points: Points to learn from.
        test_points: Points to test on.
        epochs: Passes over the training points.
        hidden: Units of the hidden layer, where there is one.
        lr: Learning rate of Adam.
        seed: Of the points and of the weights.
        out_dir: Folder of the machine that runs the steps which gets pages and figures too; empty on a cluster.
    """
    made = xor_points(
        dims=dims,
        train_points=train_points,
        test_points=test_points,
        epochs=epochs,
        hidden=hidden,
        lr=lr,
        seed=seed,
    )
    _place(made, "Points")
    points = made.outputs["points"]
    with dsl.If(dims == 2, name="two-dimensions"):
        _place(xor_plot(points=points, out_dir=out_dir), "Plot")
    without_hidden = xor_train(points=points, hidden=0)
    _place(without_hidden, "Train without a hidden layer")
    with_hidden = xor_train(points=points, hidden=hidden)
    _place(with_hidden, "Train with a hidden layer")
    compared = xor_compare(
        points=points,
        without_hidden=without_hidden.outputs["history"],
        with_hidden=with_hidden.outputs["history"],
        out_dir=out_dir,
    )
    _place(compared, "Compare")
