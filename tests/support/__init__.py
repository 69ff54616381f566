"""What the tests of the scheduling code share: one idea in each module."""
