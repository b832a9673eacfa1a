"""`python -m auditor.cli` is `prune-auditor`."""

from auditor.cli import main

main()
