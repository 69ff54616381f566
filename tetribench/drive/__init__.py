"""The client: sends requests when they are due, and writes down when their tokens come."""
