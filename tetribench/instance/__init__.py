"""The one loop that every instance runs, and the two places it runs in: this process, or a process of its own."""
