"""Where a patch acts: how an item's support and core are chosen."""
