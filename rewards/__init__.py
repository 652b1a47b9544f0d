"""Graders: a problem and a response in, a Score out. Never imports torch."""
