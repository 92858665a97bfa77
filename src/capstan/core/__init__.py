"""Values, state machines and pure rules; standard library only, and nothing of the machine (no os, time, socket)."""
