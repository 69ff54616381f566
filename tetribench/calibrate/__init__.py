"""The cost model's constants: what was measured, here or by others, and the fit to it (`tetribench task=calibrate`)."""
