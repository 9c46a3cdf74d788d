"""Run the citation pipeline on Kubeflow Pipelines from Python: `python pipelines/submit.py --host URL`.

What `citeflow submit` does, in four steps; change the constants, or import the same functions into a notebook.
"""

import argparse
import sys

from citeflow import kfpserver, submission
from citeflow.errors import CiteflowError

EXPERIMENT = "citeflow"
PARAMETERS = {"dataset": "synthetic", "workers": 2, "launcher": "pytorchjob", "settings": "train: {minutes: 10}"}
WAIT_S = 6 * 3600.0


def main() -> None:
    """Upload, run, wait.

    Raises:
        CiteflowError: told in two lines by `str`, with its `exit_code`.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="", help="URL of Kubeflow Pipelines (default: as kfp.Client finds it)")
    parser.add_argument("--namespace", default="", help="of your profile, on an installation for several users")
    args = parser.parse_args()

    planned = submission.plan(PARAMETERS, experiment=EXPERIMENT)
    server = kfpserver.connect(host=args.host, namespace=args.namespace)
    made = submission.submit(server, planned)
    print(f"{made['version']}: {made['url']}")
    kfpserver.check_ended_well(server.wait(made["run_id"], timeout_s=WAIT_S))


if __name__ == "__main__":
    try:
        main()
    except CiteflowError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
