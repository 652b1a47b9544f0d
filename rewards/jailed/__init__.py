"""Programs that run inside the sandbox, each a file of its own that imports nothing of ours."""
