"""Tensor parallelism: an instance of several ranks, each with a process, a device, and its share of every layer."""
