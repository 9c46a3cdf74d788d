"""Run the citation pipeline on Kubeflow Pipelines from Python: `python pipelines/submit.py`.

This is `citeflow submit` in four calls; change the constants, or copy the calls into a notebook.
"""

import sys

import click

from citeflow.errors import CiteflowError
from citeflow.kubeflow.connection import connect
from citeflow.kubeflow.submit import RunOptions, plan, submit
from citeflow.kubeflow.watch import watch_run

EXPERIMENT = "citeflow"
PARAMETERS = {
    "dataset": "synthetic",
    "workers": 2,
    "settings": "train: {minutes: 10}",
}
WAIT_S = 6 * 3600.0


@click.command()
@click.option("--host", default="", help="URL of Kubeflow Pipelines; else as kfp.Client finds it.")
@click.option("--namespace", default="", help="Of your profile, where several users share it.")
def main(host: str, namespace: str) -> None:
    """Upload the citation pipeline, run it, and wait for its end."""
    try:
        planned = plan(PARAMETERS, options=RunOptions(experiment=EXPERIMENT))
        client = connect(host=host, namespace=namespace)
        submission = submit(client, planned)
        print(f"{submission.version}: {submission.url}")
        _, error = watch_run(client, submission.run_id, timeout_s=WAIT_S)
        if error:
            raise error
    except CiteflowError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
