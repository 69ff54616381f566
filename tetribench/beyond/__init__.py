"""What the paper does not show: equal hardware, arrival rates, causes of the gain, a map, and sweeps, a module each."""
