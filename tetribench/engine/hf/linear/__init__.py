"""Linear layers on the CPU by a kernel in C, with weights laid out once as it reads them."""
