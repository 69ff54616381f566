"""C, compiled by the machine that runs it when a process first needs it. Without torch."""
