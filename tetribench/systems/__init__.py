"""What is compared: one file for each legend entry, which only wires parts together."""
