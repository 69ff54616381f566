"""Decode attention in C for the CPU, compiled on the machine that runs it: keys are read where they lie."""
