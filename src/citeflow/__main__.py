"""`python -m citeflow` is the command `citeflow`."""

import sys

if not sys.flags.safe_path:
    # Python has put the working folder first: what lies there is data, and never code. In a checkout
    # of citeflow, for one, the folder docker/ would be taken for the package `docker` by kfp.local.
    del sys.path[0]

from citeflow.cli.main import main

sys.exit(main())
