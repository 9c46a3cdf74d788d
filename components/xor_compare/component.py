"""Put the models without and with a hidden layer beside each other."""

from kfp import dsl

from components.base import SMALL_IMAGE


@dsl.component(base_image=SMALL_IMAGE, install_kfp_package=False)
def xor_compare(
    points: dsl.Input[dsl.Dataset],
    without_hidden: dsl.Input[dsl.Artifact],
    with_hidden: dsl.Input[dsl.Artifact],
    out_dir: str,
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Put the models without and with a hidden layer beside each other.

    Args:
        points: Points that both have learned.
        without_hidden: History of the model without a hidden layer.
        with_hidden: History of the model with one.
        out_dir: Folder that gets the page and the figures too; empty for none.
        metrics: Loss and accuracy of both on both sets after the last epoch.
        summary: What came out, and a table.
        page: Loss and accuracy of both after each epoch.
    """
    from citeflow.experiments import xor_steps

    xor_steps.compare(
        points, without_hidden, with_hidden, out_dir, metrics=metrics, summary=summary, page=page
    )
