"""The length predictor before a run (paper section 3.3.2): measured response lengths, and what is learnt of them."""
