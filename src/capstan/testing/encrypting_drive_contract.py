"""What every tape drive that encrypts must do (`tape.drive.EncryptingDrive`), beyond what every tape drive does.

Bind it as `drive_contract`, and give a fixture `medium`: a callable that returns all bytes that are on the cartridge.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from capstan.errors import BlockTooLarge, DriveKeyNeeded, InvalidValue, Remedy
from capstan.tape.drive import BlockKey, EncryptingDrive, Read, SpaceUnit, TapeDrive, find_encrypting
from capstan.testing.drive_contract import LENGTHS, read, write

KEY, OTHER_KEY = b"K" * 32, b"O" * 32
KEY_ID, OTHER_ID = "0123456789abcdef", "fedcba9876543210"
HEADER, PAYLOAD = b"a header, for all to read", b"a payload, for those who have the key"


def write_mixed(drive: EncryptingDrive) -> None:
    """Twice a header in clear and two encrypted payloads, a filemark behind each; the tape stands at its beginning."""
    for _ in range(2):
        drive.set_key(KEY, KEY_ID, encrypt=False)
        drive.write_block(memoryview(HEADER))
        drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.write_block(memoryview(PAYLOAD))
        drive.write_block(memoryview(PAYLOAD))
        drive.write_filemarks(1)
    drive.rewind()


class EncryptingDriveContract:
    """Promises of the port of drives that encrypt. `write_mixed` makes blocks 0 to 7."""

    @pytest.fixture
    def encrypting(self, drive: TapeDrive) -> EncryptingDrive:
        found = find_encrypting(drive)
        assert found is not None
        return found

    def test_a_mixed_tape(self, encrypting: EncryptingDrive) -> None:
        """Whether a record is encrypted is chosen for each, and with the key all can be read, one after the other."""
        write_mixed(encrypting)
        expected = [HEADER, PAYLOAD, PAYLOAD, Read.FILEMARK] * 2 + [Read.END_OF_DATA]
        assert [read(encrypting) for _ in expected] == expected
        encrypting.rewind()
        encrypting.set_key(KEY, KEY_ID, encrypt=True)
        assert [read(encrypting) for _ in expected] == expected

    def test_what_is_on_the_medium(self, encrypting: EncryptingDrive, medium: Callable[[], bytes]) -> None:
        """What was written in clear is, what was encrypted is not, and the key is nowhere."""
        write_mixed(encrypting)
        raw = medium()
        assert raw.count(HEADER) == 2
        assert PAYLOAD[:8] not in raw
        assert KEY[:8] not in raw

    @pytest.mark.parametrize("key", [None, (OTHER_KEY, OTHER_ID)], ids=["no-key", "wrong-key"])
    def test_what_cannot_be_decrypted(self, encrypting: EncryptingDrive, key: tuple[bytes, str] | None) -> None:
        """What is in clear can be read. An encrypted record names the key that it needs, also to a program, gives away
        nothing, and the tape stays before it: with the key, the same read succeeds."""
        write_mixed(encrypting)
        encrypting.set_key(*key, encrypt=False) if key else encrypting.clear_key()
        assert read(encrypting) == HEADER
        for _ in range(2):
            buffer = memoryview(bytearray(1000))
            with pytest.raises(DriveKeyNeeded, match=KEY_ID) as caught:
                encrypting.read_block(buffer)
            assert bytes(buffer) == bytes(1000)
            assert caught.value.parameters["key"] == KEY_ID
            assert encrypting.position().block == 1
        assert (caught.value.exit_code, caught.value.remedy) == (5, Remedy.OPERATOR)
        assert "block 1" in str(caught.value)
        assert "key" in caught.value.hint_text
        encrypting.set_key(KEY, KEY_ID, encrypt=False)
        assert read(encrypting) == PAYLOAD

    def test_positions_need_no_key(self, encrypting: EncryptingDrive) -> None:
        """Locating, spacing over records and filemarks, and the end of data are as on any tape."""
        write_mixed(encrypting)
        encrypting.clear_key()
        encrypting.locate(2)
        assert encrypting.space(5, SpaceUnit.BLOCKS) == 1
        assert read(encrypting) == HEADER
        assert encrypting.space(1, SpaceUnit.FILEMARKS) == 1
        assert encrypting.position().block == 8
        assert encrypting.seek_end_of_data().block == 8

    def test_the_next_block_names_its_key(self, encrypting: EncryptingDrive) -> None:
        """Asked with the key, with another and with none; a filemark and the end of data are no records, and nothing
        moves."""
        write_mixed(encrypting)
        for block, expected in (
            (0, BlockKey(encrypted=False)),
            (1, BlockKey(encrypted=True, key_id=KEY_ID)),
            (3, BlockKey(encrypted=None)),
            (8, BlockKey(encrypted=None)),
        ):
            encrypting.locate(block)
            encrypting.clear_key()
            assert encrypting.next_block_key() == expected
            for key, key_id in ((KEY, KEY_ID), (OTHER_KEY, OTHER_ID)):
                encrypting.set_key(key, key_id, encrypt=True)
                assert encrypting.next_block_key() == expected
            assert encrypting.position().block == block

    def test_unloading_forgets_the_key(self, encrypting: EncryptingDrive) -> None:
        """Behind the next load nothing is encrypted, and nothing can be read that was, until the key is set again."""
        write_mixed(encrypting)
        encrypting.unload()
        encrypting.load()
        encrypting.locate(1)
        with pytest.raises(DriveKeyNeeded):
            read(encrypting)
        encrypting.seek_end_of_data()
        encrypting.write_block(memoryview(PAYLOAD))
        encrypting.locate(8)
        assert encrypting.next_block_key() == BlockKey(encrypted=False)
        assert read(encrypting) == PAYLOAD
        encrypting.locate(1)
        encrypting.set_key(KEY, KEY_ID, encrypt=False)
        assert read(encrypting) == PAYLOAD

    def test_clearing_the_key(self, encrypting: EncryptingDrive) -> None:
        """What is written behind it is in clear, also over what was encrypted; twice is harmless; so is a drive that
        never had a key."""
        encrypting.clear_key()
        encrypting.set_key(KEY, KEY_ID, encrypt=True)
        write(encrypting, 200)
        encrypting.rewind()
        encrypting.clear_key()
        encrypting.clear_key()
        [data] = write(encrypting, 100)
        encrypting.rewind()
        assert read(encrypting) == data

    def test_two_keys_on_a_tape(self, encrypting: EncryptingDrive) -> None:
        """Each record bears the id of its own key."""
        for key, key_id in ((KEY, KEY_ID), (OTHER_KEY, OTHER_ID)):
            encrypting.set_key(key, key_id, encrypt=True)
            encrypting.write_block(memoryview(PAYLOAD))
        encrypting.rewind()
        for key, key_id in ((KEY, KEY_ID), (OTHER_KEY, OTHER_ID)):
            assert encrypting.next_block_key() == BlockKey(encrypted=True, key_id=key_id)
            encrypting.set_key(key, key_id, encrypt=False)
            assert read(encrypting) == PAYLOAD

    def test_lengths(self, encrypting: EncryptingDrive) -> None:
        """Encrypted records have the lengths that they were written with, up to the largest; too long is told."""
        encrypting.set_key(KEY, KEY_ID, encrypt=True)
        data = write(encrypting, *LENGTHS, encrypting.capabilities.max_block)
        encrypting.rewind()
        assert [read(encrypting, len(item)) for item in data] == data
        encrypting.rewind()
        assert read(encrypting) == data[0]
        with pytest.raises(BlockTooLarge):
            encrypting.read_block(memoryview(bytearray(1)))
        assert read(encrypting) == data[2]

    def test_what_is_no_key(self, encrypting: EncryptingDrive) -> None:
        """A key that is too short or an id that is none is refused, never shown, and changes nothing."""
        encrypting.set_key(KEY, KEY_ID, encrypt=True)
        for key, key_id in ((KEY[:-1], KEY_ID), (KEY, KEY_ID[:-1]), (KEY, KEY_ID.upper())):
            with pytest.raises(InvalidValue) as caught:
                encrypting.set_key(key, key_id, encrypt=False)
            assert "KKKK" not in str(caught.value.as_dict())
        encrypting.write_block(memoryview(PAYLOAD))
        encrypting.rewind()
        assert encrypting.next_block_key().encrypted

    def test_no_repr_shows_the_key(self, encrypting: EncryptingDrive) -> None:
        """Nor does anything that hangs on the drive, as far as one can look into it."""
        encrypting.set_key(KEY, KEY_ID, encrypt=True)
        seen: set[int] = set()
        left: list[object] = [encrypting]
        while left:
            item = left.pop()
            if id(item) not in seen:
                seen.add(id(item))
                assert "KKKK" not in repr(item)
                left += vars(item).values() if hasattr(item, "__dict__") else []
