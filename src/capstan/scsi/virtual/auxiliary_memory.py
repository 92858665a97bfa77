"""The medium auxiliary memory of a virtual cartridge (SPC-5, 7.4; READ ATTRIBUTE and WRITE ATTRIBUTE)."""

from __future__ import annotations

from capstan.scsi.attributes import Attribute, Form, Number, decode_attributes, encode_attributes
from capstan.scsi.virtual.cartridge import VirtualCartridge
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, illegal

_MEBIBYTE = 1 << 20
_FORMS: dict[int, Form] = {
    Number.USER_TEXT_LABEL: Form.TEXT,
    Number.MEDIA_POOL: Form.TEXT,
    Number.TEXT_LOCALIZATION: Form.BINARY,
}  # of what hosts write; all else is ASCII (SPC-5, table 470)
_VALUES, _LIST, _VOLUMES, _PARTITIONS = 0x00, 0x01, 0x02, 0x03  # service actions (SPC-5, table 237)
_OF_HOST = range(0x0800, 0x0C00)  # what a host may write (SPC-5, table 470)
_MEDIUM_TYPE = 0x0408  # 80h: WORM (SPC-5, table 468)
_LONGEST = 512  # bytes of one of those


class AuxiliaryMemory:
    """What the cartridge in a drive has in its memory, now."""

    def __init__(self, tape: TapeImage, cartridge: VirtualCartridge) -> None:
        self._cartridge = cartridge
        self._facts = cartridge.facts
        self._tape = tape

    def answer(self, cdb: bytes) -> bytes:
        """To READ ATTRIBUTE, from the attribute that it begins with. ILLEGAL REQUEST for what is not there."""
        action, first = cdb[1] & 0x1F, int.from_bytes(cdb[8:10], "big")
        found = [item for item in self._attributes() if item.number >= first]
        if action == _VALUES:
            body = encode_attributes(found)
        elif action == _LIST:
            body = b"".join(item.number.to_bytes(2, "big") for item in found)
        elif action in (_VOLUMES, _PARTITIONS):
            return bytes((0, 2, 0, 1))  # one, the first
        else:
            raise illegal(*INVALID_FIELD)
        return len(body).to_bytes(4, "big") + body

    def write(self, parameters: bytes) -> int:
        """The data of WRITE ATTRIBUTE: all of it or nothing. An empty value takes an attribute away. Durable."""
        changed = dict(self._facts.attributes)
        for item in decode_attributes(parameters):
            if item.number not in _OF_HOST or len(item.value) > _LONGEST:
                raise illegal(0x26, 0x00)  # INVALID FIELD IN PARAMETER LIST
            changed.pop(f"{item.number:04x}", None)
            if item.value:
                changed[f"{item.number:04x}"] = item.value.hex()
        self._facts.attributes = changed
        self._cartridge.save()
        return len(parameters)

    def _attributes(self) -> list[Attribute]:
        facts, total = self._facts, self._facts.capacity_bytes
        left = max(total - self._tape.end_offset, 0)
        own = [
            Attribute.number_of(Number.REMAINING_CAPACITY, left // _MEBIBYTE, 8),
            Attribute.number_of(Number.MAXIMUM_CAPACITY, total // _MEBIBYTE, 8),
            Attribute.number_of(Number.LOAD_COUNT, facts.loads, 8),
            Attribute.number_of(Number.DENSITY, self._cartridge.generation.density, 1),
            Attribute.number_of(Number.TOTAL_WRITTEN, facts.written_bytes // _MEBIBYTE, 8),
            Attribute.number_of(Number.TOTAL_READ, facts.read_bytes // _MEBIBYTE, 8),
            Attribute.text(Number.MEDIUM_MANUFACTURER, "CAPSTAN", 8),
            Attribute.text(Number.MEDIUM_SERIAL, facts.barcode, 32),
            Attribute.number_of(_MEDIUM_TYPE, 0x80 if facts.worm else 0x00, 1),
        ]
        hosts = []
        for key, value in facts.attributes.items():
            number = int(key, 16)
            hosts.append(Attribute(number, _FORMS.get(number, Form.ASCII), bytes.fromhex(value)))
        return sorted([*own, *hosts], key=lambda item: item.number)
