"""Servers of others as instances: spoken to over HTTP, opaque inside, behind the same router as ours."""
