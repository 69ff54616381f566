"""tetribench: should prefill and decode live together or apart, for my model, my hardware, my traffic?"""

__version__ = "0.1.0"
