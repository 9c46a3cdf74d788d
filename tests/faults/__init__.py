"""One test or more for each row of docs/faults.md, and what collects their figures."""
