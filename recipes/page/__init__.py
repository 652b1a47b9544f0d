"""The report of a run: reading its folder, packing its rollouts, the page, and its server."""
