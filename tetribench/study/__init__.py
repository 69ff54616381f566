"""Experiments: what is varied, what is measured in each cell, and the figure and table that come of it."""
