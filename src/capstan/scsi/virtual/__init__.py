"""A real SCSI device server in this process: an SSC drive and an SMC changer over cartridge files.

It answers command descriptor blocks, passes the same contract suites as hardware, and can be told to fail.
"""
