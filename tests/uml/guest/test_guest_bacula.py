"""Bacula uses the library: its judge of drives and changers, btape, and backups and a restore over its autochanger."""

from __future__ import annotations

import random
import re
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Served, command, run, serve

FOLDER = Path("/tmp/bacula")
# btape writes 2 x 10,000 blocks in its first test: with blocks of 8 KiB they fit into the guest's memory.
STORAGE = """
Storage {{ Name = sd; SDPort = 9103; SDAddress = 127.0.0.1; WorkingDirectory = {folder}; PidDirectory = {folder} }}
Director {{ Name = dir; Password = "secret" }}
Messages {{ Name = Standard; append = "{folder}/log" = all }}
Autochanger {{
  Name = changer; Device = drive0, drive1
  Changer Device = {changer}; Changer Command = "/etc/bacula/scripts/mtx-changer %c %o %S %a %d"
}}
"""
DEVICE = """
Device {{
  Name = drive{index}; Media Type = LTO; Archive Device = {tape}; Autochanger = yes; Drive Index = {index}
  AutomaticMount = yes; AlwaysOpen = no; RemovableMedia = yes; RandomAccess = no; LabelMedia = yes
  Maximum Block Size = 8192
}}
"""
DIRECTOR = """
Director {{
  Name = dir; DIRport = 9101; DirAddress = 127.0.0.1; WorkingDirectory = {folder}; PidDirectory = {folder}
  QueryFile = /etc/bacula/scripts/query.sql; Password = "secret"; Messages = Standard
}}
Catalog {{ Name = catalog; dbname = "bacula"; dbuser = ""; dbpassword = "" }}
Messages {{ Name = Standard; append = "{folder}/log" = all; console = all }}
Client {{ Name = fd; Address = 127.0.0.1; FDPort = 9102; Catalog = catalog; Password = "secret" }}
Autochanger {{
  Name = tapes; Address = 127.0.0.1; SDPort = 9103; Password = "secret"; Device = changer; Media Type = LTO
  Autochanger = tapes
}}
Pool {{ Name = Tapes; Pool Type = Backup; Recycle = no; AutoPrune = no }}
Pool {{ Name = Scratch; Pool Type = Scratch }}
FileSet {{ Name = files; Include {{ Options {{ signature = SHA256 }}; File = {folder}/source }} }}
JobDefs {{
  Name = both; Client = fd; FileSet = files; Storage = tapes; Pool = Tapes; Messages = Standard
}}
Job {{ Name = save; JobDefs = both; Type = Backup; Level = Full }}
Job {{ Name = fetch; JobDefs = both; Type = Restore; Where = {folder}/out }}
"""
CLIENT = """
FileDaemon {{ Name = fd; FDPort = 9102; FDAddress = 127.0.0.1; WorkingDirectory = {folder}; PidDirectory = {folder} }}
Director {{ Name = dir; Password = "secret" }}
Messages {{ Name = Standard; append = "{folder}/log" = all }}
"""
CONSOLE = """
Director {{ Name = dir; DIRport = 9101; Address = 127.0.0.1; Password = "secret" }}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A library of its own, with more room on a cartridge, and Bacula's configuration for it."""
    home = tmp_path_factory.mktemp("bacula")
    options = ("--capacity", "192MiB", "--drives", "2", "--cartridges", "4", "--slots", "5", "--ports", "1")
    run(*command(home, "library", "create", "lib", "--virtual", *options))
    library = serve(home)
    FOLDER.mkdir(exist_ok=True)
    told = {"folder": FOLDER, "changer": library.changer}
    devices = "".join(DEVICE.format(index=index, tape=tape) for index, tape in enumerate(library.tapes))
    (FOLDER / "sd.conf").write_text(STORAGE.format(**told) + devices)
    for name, text in (("dir", DIRECTOR), ("fd", CLIENT), ("console", CONSOLE)):
        (FOLDER / f"{name}.conf").write_text(text.format(**told))
    settings = Path("/etc/bacula/scripts/mtx-changer.conf")  # a drive lets go of a cartridge once it is unloaded
    settings.write_text(re.sub(r"(?m)^offline=0$", "offline=1", settings.read_text()))
    yield library
    library.stop()


def answered(program: str, configuration: str, *arguments: str, lines: str) -> str:
    """What a program of Bacula's says to these lines."""
    return run(program, "-c", FOLDER / configuration, *arguments, code=None, input=lines)


def console(lines: str) -> str:
    return answered("bconsole", "console.conf", lines=lines)


def test_btape(served: Served) -> None:
    """Its tests of the drive and of the changer: "essential", it says, for Bacula."""
    run("mtx", "-f", served.changer, "load", "1", "0")
    said = answered("btape", "sd.conf", served.tapes[0], lines="test\ny\nquit\n")
    assert said.count("Test Succeeded. End Write, rewind, and re-read test") == 2, said
    assert said.count("10000 blocks re-read correctly.") == 2, said
    appended = re.findall(r"(\d) blocks? of 8128 bytes in file (\d)", said)
    assert appended == [("1", "1"), ("2", "2"), ("3", "3"), ("1", "4")], said
    assert "Block re-read correct. Test succeeded!" in said and "The test autochanger worked!!" in said, said
    places = re.findall(r"We should be in file (\d+). I am at file (\d+).", said)
    assert len(places) == 6 and all(expected == found for expected, found in places), said
    assert not re.search(r"ERR=|Bad autochanger|NOT correct", said), said
    run("mt-st", "-f", served.tapes[0], "offline")
    run("mtx", "-f", served.changer, "unload", "1", "0")


@pytest.fixture(scope="module")
def daemons(served: Served) -> Iterator[None]:
    """Director, storage and file daemon, over an empty catalog."""
    script = Path("/usr/share/bacula-director/make_sqlite3_tables").read_text()
    [tables] = re.findall(r"<<END-OF-DATA\n(.*?)\nEND-OF-DATA", script, re.DOTALL)
    catalog = sqlite3.connect(FOLDER / "bacula.db")
    catalog.executescript(tables)
    catalog.close()
    running = [
        subprocess.Popen([f"bacula-{name}", "-f", "-c", str(FOLDER / f"{name}.conf")]) for name in ("sd", "fd", "dir")
    ]
    for port in (9103, 9102, 9101):
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert all(process.poll() is None for process in running)
    yield
    for process in reversed(running):
        process.terminate()
        process.wait(60)


def test_backup_and_restore(served: Served, daemons: None) -> None:
    """Labelled by their barcodes, written by both of two jobs, read back by one: all over its autochanger."""
    source = FOLDER / "source"
    source.mkdir()
    for number in range(20):
        (source / f"file {number}").write_bytes(random.Random(number).randbytes(number * 40_000))
    said = console("label barcodes storage=tapes drive=0 pool=Tapes slots=2-3 encrypt=no\nyes\n")
    assert said.count("Catalog record for Volume") == 2, said
    said = console("run job=save yes\nwait\nmessages\n")
    assert re.search(r"Termination: +Backup OK", said), said
    (source / "later").write_bytes(b"later")
    said = console("run job=save level=Incremental yes\nwait\nmessages\n")
    assert re.search(r"Termination: +Backup OK", said), said
    said = console("restore client=fd restorejob=fetch select current all done yes\nwait\nmessages\n")
    assert re.search(r"Termination: +Restore OK", said), said
    run("diff", "-r", source, FOLDER / "out" / source.relative_to("/"))
    assert re.search(r"CAP002L9 +\| Append", console("list volumes\n"))
