"""Two engines of one process on one GPU, each on multiprocessors of its own: NVIDIA's green contexts."""
