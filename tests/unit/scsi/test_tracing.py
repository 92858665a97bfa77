"""What a trace keeps of each command, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.errors import InvalidValue, StorageFailed, TransportError
from capstan.scsi import cdb
from capstan.scsi.describe import fields_of, name_of
from capstan.scsi.tracing import Trace, TracingTransport, describe_traced, read_trace
from capstan.scsi.transport import ScsiTransport
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.transport_contract import TransportContract


def opened(folder: Path, *faults: Fault) -> VirtualLibrary:
    if not folder.exists():
        VirtualLibrary.create(folder, LibrarySpec("lib", cartridges=2, slots=3, cleaning_cartridges=0))
    return VirtualLibrary.open(folder, faults=FaultPlan(faults))


class TestTracingTransport(TransportContract):
    @pytest.fixture
    def transport(self, tmp_path: Path) -> Iterator[ScsiTransport]:
        library = opened(tmp_path / "lib")
        trace = Trace(tmp_path / "trace")
        yield TracingTransport(library.drive_transport(0), trace)
        trace.close()
        library.close()
        assert list(read_trace((tmp_path / "trace").read_text().splitlines()))


def test_what_is_kept(tmp_path: Path) -> None:
    """Command, direction, bytes, status, sense, time; no data, also none of keys."""
    library = opened(tmp_path / "lib")
    trace = Trace(tmp_path / "trace")
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(TracingTransport(library.drive_transport(0), trace))
    drive.load()
    drive.set_key(b"a secret that is 32 bytes long .", "00112233445566aa", encrypt=True)
    drive.write_block(memoryview(b"content" * 1000))
    drive.rewind()
    drive.read_block(memoryview(bytearray(20_000)))
    drive.close()
    trace.close()
    text = (tmp_path / "trace").read_text()
    for secret in (b"a secret", b"content"):
        assert secret.decode() not in text and secret.hex() not in text
    told = [describe_traced(traced) for traced in read_trace(text.splitlines())]
    [written] = [item for item in told if item["name"] == "WRITE(6)"]
    assert (written["direction"], written["status_name"], written["sense"]) == ("out", "GOOD", "")
    assert written["length"] == written["moved"] and written["fields"] == f"{written['moved']} bytes"
    [read] = [item for item in told if item["name"] == "READ(6)"]
    assert read["moved"] == written["moved"] < read["length"] and read["seconds"] >= 0
    [key] = [item for item in told if item["name"] == "SECURITY PROTOCOL OUT" and "0010h" in item["fields"]]
    assert key["length"] > 32
    assert any("power on or reset" in item.get("sense_text", "") for item in told)
    assert [item["at"] for item in told] == sorted(item["at"] for item in told)


def test_no_answer_is_kept_too(tmp_path: Path) -> None:
    library = opened(tmp_path / "lib", Fault(FaultKind.ANSWER_LOST, unit="drive0", permanent=True))
    trace = Trace(tmp_path / "trace")
    with pytest.raises(TransportError):
        ScsiTapeDrive(TracingTransport(library.drive_transport(0), trace))
    [traced] = read_trace((tmp_path / "trace").read_text().splitlines())
    assert traced.status is None and traced.error.startswith("unknown: ")


def test_a_trace_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("mine")
    with pytest.raises(StorageFailed, match="exists"):
        Trace(tmp_path / "trace")
    assert (tmp_path / "trace").read_text() == "mine"


def test_what_is_no_trace() -> None:
    """The number of the line is named; only a last line may be cut off."""
    line = json.dumps(
        {
            "at": 0,
            "address": "a",
            "cdb": "00",
            "direction": "none",
            "length": 0,
            "moved": 0,
            "status": 0,
            "sense": "",
            "seconds": 0,
        }
    )
    assert len(list(read_trace([line, line[:20]]))) == 1
    with pytest.raises(InvalidValue, match="line 2"):
        list(read_trace([line, "{}", line]))


@pytest.mark.parametrize(
    ("command", "name", "fields"),
    [
        (cdb.write(512), "WRITE(6)", "512 bytes"),
        (bytes((0x08, 1, 0, 0, 3, 0)), "READ(6)", "3 blocks"),
        (cdb.locate(77), "LOCATE(16)", "block 77"),
        (cdb.space(-2, cdb.SpaceCode.FILEMARKS), "SPACE(6)", "-2 filemarks"),
        (cdb.inquiry(36), "INQUIRY", "standard data"),
        (cdb.inquiry(36, page=0x80), "INQUIRY", "page 80h"),
        (cdb.log_sense(0x2E), "LOG SENSE", "page 2Eh"),
        (cdb.load_unload(load=False), "LOAD UNLOAD", "unload"),
        (cdb.move_medium(1, 1001, 101), "MOVE MEDIUM", "from 1001 to 101"),
        (cdb.test_unit_ready(), "TEST UNIT READY", ""),
        (bytes((0xFF, 0)), "command FFh", ""),
        (bytes((0x2B,)), "LOCATE(10)", "block 0"),
        (b"", "command ?h", ""),
    ],
)
def test_commands_in_words(command: bytes, name: str, fields: str) -> None:
    assert (name_of(command), fields_of(command)) == (name, fields)
