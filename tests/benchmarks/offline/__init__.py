"""The same batches on our engine and on others, each in a process of its own that answers cases one at a time."""
