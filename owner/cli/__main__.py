"""`python -m owner.cli` is `prune-owner`."""

from owner.cli import main

main()
