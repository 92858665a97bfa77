"""A virtual drive encrypts as drives do: by the command, with the standard's answers, and truly on the medium."""

from __future__ import annotations

from pathlib import Path

import pytest

from capstan.core.generations import GENERATIONS
from capstan.scsi import cdb, encryption
from capstan.scsi.encryption import (
    AES_256_GCM,
    PROTOCOL,
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    InPage,
    KeyData,
    OutPage,
    SetDataEncryption,
)
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.cartridge import CartridgeFacts, VirtualCartridge
from capstan.scsi.virtual.drive import VirtualDrive
from capstan.scsi.virtual.storage import DiskStorage
from capstan.scsi.virtual.target import CheckCondition
from capstan.scsi.virtual.timing import Timing

KEY, OTHER = b"k" * 32, b"o" * 32
KADS = KeyData(b"12345678", b"a free text")
PLAIN = b"a record that is in plain text"
ENCRYPT, DISABLE = EncryptionMode.ENCRYPT, EncryptionMode.DISABLE


class Scene:
    """A drive with a cartridge in it, spoken to by commands."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "T00001L9.tap"
        self.drive = VirtualDrive(generation=GENERATIONS[9], serial="S", timing=Timing())
        self.cartridge = VirtualCartridge.create(folder, CartridgeFacts("T00001L9", 9, 1 << 24), DiskStorage())
        self.drive.insert(self.cartridge)

    def set(self, encrypt: int, decrypt: int, key: bytes = KEY, kads: KeyData = KADS, **fields: int) -> None:
        page = encryption.encode_set(SetDataEncryption(encrypt, decrypt, key, kads, **{"algorithm": 1, **fields}))
        self.set_raw(bytes(page))

    def set_raw(self, page: bytes) -> None:
        command = cdb.security_protocol_out(PROTOCOL, OutPage.SET_DATA_ENCRYPTION, length=len(page))
        assert self.drive.perform(command, memoryview(page)) == len(page)

    def page(self, page: int) -> bytes:
        data = memoryview(bytearray(512))
        return bytes(data[: self.drive.perform(cdb.security_protocol_in(PROTOCOL, page, length=512), data)])

    def write(self, data: bytes = PLAIN) -> None:
        self.drive.perform(cdb.write(len(data)), memoryview(data))

    def read(self, size: int = len(PLAIN)) -> bytes:
        data = memoryview(bytearray(size))
        return bytes(data[: self.drive.perform(cdb.read(size), data)])

    def refusal(self, size: int = len(PLAIN)) -> tuple[int, int, int]:
        """With what a read ends; nothing of the record may be in the buffer."""
        data = memoryview(bytearray(size))
        with pytest.raises(CheckCondition) as caught:
            self.drive.perform(cdb.read(size), data)
        assert caught.value.moved == 0
        assert bytes(data) == bytes(size)
        return caught.value.sense.key, *caught.value.sense.code

    def locate(self, block: int) -> None:
        self.drive.perform(cdb.locate(block), None)

    def position(self) -> int:
        data = memoryview(bytearray(32))
        self.drive.perform(cdb.read_position(long=True), data)
        return int.from_bytes(data[8:16], "big")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_it_says_what_it_can(scene: Scene) -> None:
    """Protocol 20h is listed, its pages are, and the algorithm is AES-256-GCM with the A-KAD of LTO drives."""
    data = memoryview(bytearray(64))
    moved = scene.drive.perform(cdb.security_protocol_in(0x00, 0x0000, length=64), data)
    assert bytes(data[8:moved]) == bytes((0x00, 0x20))
    assert encryption.decode_support(scene.page(InPage.IN_SUPPORT)) == {0x00, 0x01, 0x10, 0x20, 0x21}
    assert encryption.decode_support(scene.page(InPage.OUT_SUPPORT)) == {0x10}
    [algorithm] = encryption.decode_capabilities(scene.page(InPage.CAPABILITIES))
    assert (algorithm.code, algorithm.key_bytes) == (AES_256_GCM, 32)
    assert (algorithm.encrypts, algorithm.decrypts) == (True, True)
    assert (algorithm.max_authenticated, algorithm.max_unauthenticated) == (12, 32)


def test_a_mixed_tape(scene: Scene) -> None:
    """Records in clear and encrypted ones lie side by side; what is read depends on the decryption mode. A read that
    is refused leaves the tape before the block and nothing in the buffer."""
    scene.write()
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    scene.write()
    scene.write(PLAIN[:-1])
    scene.locate(0)
    assert [scene.read(), scene.read(), scene.read(len(PLAIN) - 1)] == [PLAIN, PLAIN, PLAIN[:-1]]
    for encrypt, decrypt, key, first, second in (
        (DISABLE, DecryptionMode.DISABLE, KEY, None, 0x01),
        (ENCRYPT, DecryptionMode.DISABLE, KEY, None, 0x01),
        (DISABLE, DecryptionMode.MIXED, OTHER, None, 0x03),
        (DISABLE, DecryptionMode.DECRYPT, KEY, 0x02, None),
        (DISABLE, DecryptionMode.DECRYPT, OTHER, 0x02, 0x03),
    ):
        scene.set(encrypt, decrypt, key)
        for block, refused in ((0, first), (1, second)):
            scene.locate(block)
            if refused is None:
                assert scene.read() == PLAIN
            else:
                assert scene.refusal() == (Key.DATA_PROTECT, 0x74, refused)
                assert scene.position() == block


def test_what_is_on_the_medium(scene: Scene) -> None:
    """No plain text and no key, and the same record twice is not the same bytes twice."""
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    scene.write()
    scene.write()
    scene.drive.perform(cdb.write_filemarks(1, immediate=False), None)
    raw = scene.path.read_bytes()
    assert PLAIN[:8] not in raw
    assert KEY[:8] not in raw
    half = (len(raw) - 4) // 2
    assert raw[36:half] != raw[half + 36 : -4]
    assert b"12345678" in raw


def test_damage_is_not_taken_for_a_wrong_key(scene: Scene) -> None:
    """A flipped bit in what is authenticated: integrity validation failed, whatever the bit. The U-KAD is free text."""
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    scene.write()
    whole = scene.path.read_bytes()
    kad, free, data, tag = 4 + 28, 4 + 28 + 8, 4 + 28 + 19, 4 + 28 + 19 + len(PLAIN) + 15
    for offset, expected in ((kad, 0x04), (free, None), (data, 0x04), (tag, 0x04), (4 + 20, 0x03)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        scene.path.write_bytes(damaged)
        scene.locate(0)
        if expected is None:
            assert scene.read() == PLAIN
        else:
            assert scene.refusal() == (Key.DATA_PROTECT, 0x74, expected)
    damaged = bytearray(whole)
    damaged[4] ^= 1  # no encrypted record at all
    scene.path.write_bytes(damaged)
    scene.locate(0)
    assert scene.refusal() == (Key.MEDIUM_ERROR, 0x11, 0x00)


def test_a_record_that_does_not_fit(scene: Scene) -> None:
    """Length errors are those of a record in clear: the plain length counts."""
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    scene.write()
    for size in (len(PLAIN) - 5, len(PLAIN) + 5):
        scene.locate(0)
        data = memoryview(bytearray(size))
        with pytest.raises(CheckCondition) as caught:
            scene.drive.perform(cdb.read(size), data)
        assert caught.value.sense.information == size - len(PLAIN)
        assert bytes(data[: caught.value.moved]) == PLAIN[:size]


def test_the_next_block_names_its_key(scene: Scene) -> None:
    """Clear, encrypted with and without the key, a filemark and the end of data; asking moves nothing."""
    scene.write()
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    scene.write()
    scene.drive.perform(cdb.write_filemarks(1, immediate=True), None)
    for key, encrypted in ((KEY, BlockStatus.DECRYPTABLE), (OTHER, BlockStatus.NEEDS_KEY)):
        scene.set(DISABLE, DecryptionMode.MIXED, key, KeyData(b"other"))
        for block, expected in enumerate((BlockStatus.CLEAR, encrypted, BlockStatus.NOT_A_BLOCK, BlockStatus.NOT_NOW)):
            scene.locate(block)
            status = encryption.decode_next_block(scene.page(InPage.NEXT_BLOCK))
            assert (status.block, status.status) == (block, expected)
            assert status.kads == (KADS if block == 1 else KeyData())
            assert scene.position() == block


def test_the_key_is_gone_when_the_tape_is(scene: Scene) -> None:
    """Unload, reset, and clearing on purpose: nothing is encrypted from there on and nothing can be read that was; the
    status shows it, and the key instance counter counts it."""
    instances = []
    for forget in (
        lambda: scene.drive.perform(cdb.load_unload(load=False), None),
        scene.drive.reset,
        lambda: scene.set(DISABLE, DecryptionMode.DISABLE, b""),
    ):
        scene.drive.perform(cdb.load_unload(load=True), None)
        scene.set(ENCRYPT, DecryptionMode.MIXED, clear_on_demount=True)
        status = encryption.decode_status(scene.page(InPage.STATUS))
        assert (status.encryption, status.decryption, status.kads) == (ENCRYPT, DecryptionMode.MIXED, KADS)
        scene.write()
        forget()
        after = encryption.decode_status(scene.page(InPage.STATUS))
        assert (after.encryption, after.decryption, after.kads) == (DISABLE, DecryptionMode.DISABLE, KeyData())
        instances += [status.key_instance, after.key_instance]
        scene.drive.perform(cdb.load_unload(load=True), None)
        assert scene.refusal() == (Key.DATA_PROTECT, 0x74, 0x01)
    assert instances == [1, 2, 3, 4, 5, 6]


def test_what_it_refuses_changes_nothing(scene: Scene) -> None:
    """Parameters that the drive cannot take are refused, and the key that was set goes on being used."""
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    scene.write()
    for fields in (
        {"key": b"k" * 31},
        {"key": b""},
        {"algorithm": 0},
        {"key_format": 1},
        {"scope": 0},
        {"kads": KeyData(b"1" * 13)},
        {"kads": KeyData(b"", b"1" * 33)},
        {"encrypt": EncryptionMode.EXTERNAL},
        {"decrypt": DecryptionMode.RAW},
    ):
        with pytest.raises(CheckCondition) as caught:
            scene.set(**{"encrypt": ENCRYPT, "decrypt": DecryptionMode.MIXED, **fields})  # type: ignore[arg-type]
        assert caught.value.sense == Sense(Key.ILLEGAL_REQUEST, 0x26, 0x00)
    with pytest.raises(CheckCondition) as caught:
        scene.set_raw(bytes(19))
    assert caught.value.sense == Sense(Key.ILLEGAL_REQUEST, 0x1A, 0x00)
    scene.locate(0)
    assert scene.read() == PLAIN
    scene.drive.perform(cdb.load_unload(load=False), None)
    with pytest.raises(CheckCondition) as caught:
        scene.set(ENCRYPT, DecryptionMode.MIXED, clear_on_demount=True)  # there is nothing to demount
    assert caught.value.sense == Sense(Key.ILLEGAL_REQUEST, 0x26, 0x00)


def test_filemarks_and_spacing_do_not_care(scene: Scene) -> None:
    """Positions are the same on an encrypted tape, and need no key."""
    scene.set(ENCRYPT, DecryptionMode.MIXED)
    for _ in range(3):
        scene.write()
    scene.drive.perform(cdb.write_filemarks(1, immediate=True), None)
    scene.write()
    scene.set(DISABLE, DecryptionMode.DISABLE, b"")
    scene.locate(0)
    scene.drive.perform(cdb.space(2, cdb.SpaceCode.BLOCKS), None)
    assert scene.position() == 2
    scene.drive.perform(cdb.space(1, cdb.SpaceCode.FILEMARKS), None)
    assert scene.position() == 4
    scene.drive.perform(cdb.space(-1, cdb.SpaceCode.FILEMARKS), None)
    assert scene.position() == 3
