"""Hypothesis: what holds for every input."""
