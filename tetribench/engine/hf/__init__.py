"""The real engine: unmodified Hugging Face decoders on a paged KV memory of our own. Only here is torch imported."""
