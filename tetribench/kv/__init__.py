"""KV memory: who holds which block, and how blocks travel between instances (paper sections 3.3.4 and 3.4)."""
