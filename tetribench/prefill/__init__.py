"""The prefill instance (paper section 3.3): order, chunk, predict, dispatch, and the scheduler that does them all."""
