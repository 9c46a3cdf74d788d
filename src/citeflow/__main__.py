"""`python -m citeflow` is the command `citeflow`."""

import sys

from citeflow.cli import main

sys.exit(main())
