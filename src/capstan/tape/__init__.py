"""Drives and changers in operators' words, over any SCSI transport. Blocking; never sees asyncio."""
