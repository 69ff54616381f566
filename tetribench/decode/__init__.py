"""The decode instance (paper section 3.4): admit, run continuously, and the scheduler that does both."""
