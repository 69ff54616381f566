"""The second seam: what runs a batch. A real model on a device, or a cost model that only waits."""
