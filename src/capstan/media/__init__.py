"""Tape manager, pools and drive lanes: which cartridge, in which drive, owned by whom. Async above, blocking below."""
