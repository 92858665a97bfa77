"""What Capstan knows of sets, cartridges, jobs and events: an index of the tapes, never the truth. Async."""
