"""Triton kernels over the paged KV memory. They read lengths and block tables on the device and wait for nothing.

Compile-time constants are head size, block size, group size and split count, and what follows from them: no kernel is
compiled again for another batch. Rows are contiguous `[rows, heads, size]`; blocks are one layer's view of the pool,
`[blocks, block_size, kv_heads, size]`, in which all but the first dimension is contiguous.
"""
