"""Measuring, never training. Never imports torch."""
