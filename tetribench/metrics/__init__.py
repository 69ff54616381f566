"""Pure functions from a run's events to tables to statistics. Every definition: the README beside this file."""
