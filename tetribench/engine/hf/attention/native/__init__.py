"""Attention in C for the CPU, compiled on the machine that runs it: keys are read, and written, where they lie."""
