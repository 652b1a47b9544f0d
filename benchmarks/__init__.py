"""Measurements beside a peer or a floor; each prints one JSON line last."""
