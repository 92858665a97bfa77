"""The header record of a tape file of a set: one form, whether the backup writes it or a copy is made."""

from __future__ import annotations

from capstan import __version__
from capstan.clock import Clock
from capstan.core.backup import BackupSet
from capstan.format.header import Header, Kind
from capstan.format.records import TapeFileWriter
from capstan.format.restore_text import restore_line
from capstan.format.written import TapeEnd


def set_header(
    kind: Kind,
    backup_set: BackupSet,
    file: TapeFileWriter,
    tape: TapeEnd,
    clock: Clock,
    *,
    codec: str,
    segment: int,
    copy: int = 0,
) -> Header:
    """What all tape files of a set say, for the one that `file` begins next. `codec`: its name, without a level.
    `segment`: the number that its restore line names. The caller adds what is of a SEGMENT or an INDEX alone."""
    return Header(
        kind=kind,
        tape_file=file.tape_file,
        block=file.block,
        cartridge=tape.cartridge,
        barcode=tape.barcode,
        record_bytes=tape.record_bytes,
        written_at=clock.now().isoformat(),
        written_by=f"capstan {__version__}",
        restore=restore_line(
            kind.value, codec, backup_set.encryption.value, container=backup_set.container, segment=segment
        ),
        previous_index_block=tape.index_block,
        previous_index_sha256=tape.index_sha256,
        set=backup_set.id,
        parent=backup_set.parent_id,
        container=backup_set.container,
        codec=codec,
        encryption=backup_set.encryption.value,
        keys=" ".join(backup_set.keys),
        set_number=backup_set.number,
        copy=copy,
    )
