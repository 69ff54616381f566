"""Baselines: prefill and decode on one instance, with the system's own allocator, batch, engine and loop."""
