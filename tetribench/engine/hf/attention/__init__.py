"""Attention over the paged KV memory: one hook for all models, and behind it one file for each way to compute it."""
