"""The page of one run of this machine, without accounts: `citeflow run --open`."""
