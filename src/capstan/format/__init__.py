"""The bytes on tape: label, segments, frames, index.

Normative text: docs/design/tape-format.md. Blocking; never sees asyncio or SQL.
"""
