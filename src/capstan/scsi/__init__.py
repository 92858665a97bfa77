"""SCSI: the transport port, pure command builders, pure decoders, one module per transport.

Knows nothing of tapes as operators see them. May be imported by tape and bootstrap.
"""
