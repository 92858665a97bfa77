"""Run, cancel and tell: job states and events."""
