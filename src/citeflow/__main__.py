"""`python -m citeflow` is the command `citeflow`."""

import sys

if not sys.flags.safe_path:
    # Python has put the working folder first: what lies there is data, and never code. In a
    # checkout, for one, kfp.local would take the folder docker/ for the package `docker`.
    del sys.path[0]

from citeflow.cli.main import main

sys.exit(main())
