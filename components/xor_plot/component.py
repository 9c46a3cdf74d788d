"""Draw a scatter plot of points of the plane."""

from kfp import dsl

from components.base import SMALL_IMAGE


@dsl.component(base_image=SMALL_IMAGE, install_kfp_package=False)
def xor_plot(points: dsl.Input[dsl.Dataset], out_dir: str, page: dsl.Output[dsl.HTML]) -> None:
    """Draw a scatter plot of points of the plane.

    Args:
        points: Points of two dimensions.
        out_dir: Folder that gets the page too; empty for none.
        page: The plot.
    """
    from citeflow.experiments import xor_steps

    xor_steps.plot(points, out_dir, page=page)
