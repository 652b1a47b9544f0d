"""The mathematics of the update, and the loop that reads top to bottom."""
