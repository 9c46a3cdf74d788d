"""Draw points labelled by the XOR of their rounded coordinates."""

from kfp import dsl

from components.base import SMALL_IMAGE


@dsl.component(base_image=SMALL_IMAGE, install_kfp_package=False)
def xor_points(
    dims: int,
    train_points: int,
    test_points: int,
    epochs: int,
    hidden: int,
    lr: float,
    seed: int,
    points: dsl.Output[dsl.Dataset],
) -> None:
    """Draw points labelled by the XOR of their rounded coordinates.

    Args:
        dims: Coordinates of a point.
        train_points: Points to learn from.
        test_points: Points to test on.
        epochs: Passes over the training points, for the steps behind this one.
        hidden: Units of the hidden layer, for the steps behind this one.
        lr: Learning rate, for the steps behind this one.
        seed: Of the points, and of the weights of the models.
        points: Parquet with the coordinates, the label, and whether a point is for the test.
    """
    from citeflow.experiments import xor_steps

    xor_steps.points(dims, train_points, test_points, epochs, hidden, lr, seed, made=points)
