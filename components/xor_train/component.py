"""Fit a multilayer perceptron to the points."""

from kfp import dsl

from components.base import SMALL_IMAGE


@dsl.component(base_image=SMALL_IMAGE, install_kfp_package=False)
def xor_train(
    points: dsl.Input[dsl.Dataset],
    hidden: int,
    history: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit a multilayer perceptron to the points.

    Args:
        points: Points to learn from and to test on.
        hidden: Units of the hidden layer; 0 leaves it out.
        history: Loss and accuracy on both sets after each epoch, as JSON.
        metrics: Loss and accuracy on both sets after the last epoch.
    """
    from citeflow.experiments import xor_steps

    xor_steps.train(points, hidden, history=history, metrics=metrics)
