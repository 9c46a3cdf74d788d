"""Run the citation pipeline on Kubeflow Pipelines from Python: `python pipelines/submit.py --host URL`.

What `citeflow submit` does, in four steps; change the constants, or import the same functions into a notebook.
"""

import argparse
import sys

from citeflow.errors import CiteflowError
from citeflow.kubeflow import client, submit

EXPERIMENT = "citeflow"
PARAMETERS = {
    "dataset": "synthetic",
    "workers": 2,
    "launcher": "pytorchjob",
    "settings": "train: {minutes: 10}",
}
WAIT_S = 6 * 3600.0


def main() -> None:
    """Upload, run, wait.

    Raises:
        CiteflowError: told in two lines by `str`, with its `exit_code`.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--host", default="", help="URL of Kubeflow Pipelines (default: as kfp.Client finds it)"
    )
    parser.add_argument(
        "--namespace", default="", help="of your profile, on an installation for several users"
    )
    args = parser.parse_args()

    planned = submit.plan(PARAMETERS, experiment=EXPERIMENT)
    server = client.connect(host=args.host, namespace=args.namespace)
    made = submit.submit(server, planned)
    print(f"{made['version']}: {made['url']}")
    client.check_ended_well(server.wait(made["run_id"], timeout_s=WAIT_S))


if __name__ == "__main__":
    try:
        main()
    except CiteflowError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
