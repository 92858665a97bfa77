"""Encryption by a SCSI tape drive: what `EncryptingDrive` asks, said in pages of tape data encryption (SSC-5, 8.5).

The key's id is kept with each block as the A-KAD, in 8 bytes: LTO drives have room for 12 there, so its 16 hexadecimal
digits do not fit as text. The drive authenticates it with the block, and tells it of the next block without any key.
"""

from __future__ import annotations

from capstan.errors import DeviceError, IllegalRequest
from capstan.scsi import cdb, encryption
from capstan.scsi.encryption import (
    PROTOCOL,
    Algorithm,
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    InPage,
    KeyData,
    NextBlockStatus,
    OutPage,
    SetDataEncryption,
)
from capstan.tape.discovery import KEY_ID_BYTES, find_algorithm
from capstan.tape.drive import BlockKey
from capstan.tape.scsi_commands import DriveCommands

_ALLOCATION = 1024  # bytes: more than any page with its KADs
_ENCRYPTED = (BlockStatus.UNKNOWN_ALGORITHM, BlockStatus.DECRYPTABLE, BlockStatus.NEEDS_KEY)


class ScsiDriveKey:
    """The key of one drive. Holds no key itself, only whether the drive encrypts, and by which key's id."""

    def __init__(self, commands: DriveCommands) -> None:
        self._commands = commands
        self._algorithm: Algorithm | None = find_algorithm(commands.query)
        self.key_id = ""  # by which records are encrypted now; empty when they are written in clear
        self._unsure = False  # what was set last failed, and may have been done or not
        self._losses = 0
        self._known = False  # whether the drive does what was asked here, and not what somebody before us has asked

    @property
    def supported(self) -> bool:
        """Whether the drive encrypts."""
        return self._algorithm is not None

    @property
    def doubtful(self) -> bool:
        """Whether the drive may write in clear what was to be encrypted: it has lost the position since, and a drive
        that was reset has lost its key too."""
        return self._unsure or (bool(self.key_id) and self._commands.losses != self._losses)

    def set(self, key: bytes, key_id: str, *, encrypt: bool) -> None:
        """As `EncryptingDrive.set_key`, of values that were checked."""
        if self._algorithm is None:
            raise IllegalRequest(
                device=self._commands.address, command="SET DATA ENCRYPTION", sense="the drive does not encrypt"
            )
        mode = EncryptionMode.ENCRYPT if encrypt else EncryptionMode.DISABLE
        kads = KeyData(authenticated=bytes.fromhex(key_id))
        self._set(
            SetDataEncryption(
                mode, DecryptionMode.MIXED, key, kads, algorithm=self._algorithm.index, clear_on_demount=True
            )
        )
        self.key_id, self._losses, self._unsure = key_id if encrypt else "", self._commands.losses, False

    def drop_left_over(self) -> None:
        """Clear a key by which a run of ours that was killed goes on encrypting: what is written in clear shall be. It
        bears an id like ours; the keys that other programs have set, perhaps for us, are their business."""
        if self._algorithm is None or self._known:
            return
        found = encryption.decode_status(self._ask(InPage.STATUS))
        if found.encryption == EncryptionMode.ENCRYPT and len(found.kads.authenticated) == KEY_ID_BYTES:
            self.clear()
        self._known = True

    def clear(self) -> None:
        """As `EncryptingDrive.clear_key`."""
        if self._algorithm is not None:
            self._set(SetDataEncryption(algorithm=self._algorithm.index))
        self.key_id, self._unsure = "", False

    def forgotten(self) -> None:
        """The cartridge has left the drive, and the key with it."""
        self.key_id, self._unsure, self._known = "", False, False

    def next_block(self) -> BlockKey:
        """As `EncryptingDrive.next_block_key`, wherever the tape stands."""
        if self._algorithm is None:
            return BlockKey(encrypted=None)
        found = encryption.decode_next_block(self._ask(InPage.NEXT_BLOCK))
        if found.status in _ENCRYPTED:
            return BlockKey(encrypted=True, key_id=_key_id(found))
        return BlockKey(encrypted=False if found.status == BlockStatus.CLEAR else None)

    def _set(self, parameters: SetDataEncryption) -> None:
        """Send them, and look whether the drive does what was asked. Until that is known, nothing shall be written."""
        self._unsure, self._known = True, True
        page = encryption.encode_set(parameters)
        try:
            command = cdb.security_protocol_out(PROTOCOL, OutPage.SET_DATA_ENCRYPTION, length=len(page))
            self._commands.send_parameters("SET DATA ENCRYPTION", command, memoryview(page))
        finally:
            page[:] = bytes(len(page))
        found = encryption.decode_status(self._ask(InPage.STATUS))
        if (found.encryption, found.decryption) != (parameters.encryption, parameters.decryption):
            raise DeviceError(
                device=self._commands.address,
                command="SET DATA ENCRYPTION",
                sense=f"the drive is in modes {found.encryption} and {found.decryption} behind it",
            )

    def _ask(self, page: int) -> bytes:
        command = cdb.security_protocol_in(PROTOCOL, page, length=_ALLOCATION)
        return self._commands.query(command, _ALLOCATION, optional=True)


def _key_id(found: NextBlockStatus) -> str:
    """The id in an A-KAD of ours; what other programs have written there or in the U-KAD, as text if it is text."""
    kad = found.kads.authenticated or found.kads.unauthenticated
    if len(kad) == KEY_ID_BYTES and found.kads.authenticated:
        return kad.hex()
    text = kad.rstrip(b"\0").decode("ascii", "replace")
    return text if text.isprintable() and "\ufffd" not in text else kad.hex()
