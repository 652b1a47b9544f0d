"""Data sets: their rows, their prompts and the reward that grades them."""
