"""Secrets and what is done with them: sealing and opening payloads. Everything above it may import it; it knows nothing
of tapes. No `repr`, error or log line shows a secret."""
