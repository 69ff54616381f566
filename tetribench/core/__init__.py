"""The nouns everything else is written in: requests, sequences, events, loads, messages, clocks."""
