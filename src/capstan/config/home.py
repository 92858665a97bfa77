"""The home: one directory with everything that this installation keeps.

capstan.toml   settings and the definitions of libraries: outlives the database
catalog.db     what is known of sets, cartridges and jobs
indexes/       the file index of each set
jobs/          locks of running jobs, and the warnings of each job
spool/         what is being made; emptied at will
libraries/     virtual libraries
keys/          secret keys, wrapped; made with the first key
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from capstan.config.settings import DeviceLibrarySettings, Settings, VirtualLibrarySettings
from capstan.core.ids import check_name
from capstan.durable_files import write_durably
from capstan.errors import AlreadyExists, ConfigurationBroken, NotFound, StorageFailed

_FOLDERS = ("indexes", "jobs", "spool", "libraries")
_FIRST = """\
# Settings of this Capstan home. Every key has a default; `docs/operations.md` lists them.
"""


class Home:
    """Paths and settings of one home directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def configuration(self) -> Path:
        return self.path / "capstan.toml"

    @property
    def database(self) -> Path:
        return self.path / "catalog.db"

    @property
    def indexes(self) -> Path:
        return self.path / "indexes"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    def prepare(self) -> None:
        """Make what is missing, private to its owner. StorageFailed."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _FOLDERS:
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
            if not os.path.lexists(self.configuration):  # a link that leads nowhere is not ours to replace
                self._write(_FIRST)
        except OSError as error:
            raise StorageFailed(path=self.path, reason=error.strerror or str(error)) from None

    def settings(self) -> Settings:
        """Read capstan.toml. ConfigurationBroken names the key and what is wrong with it."""
        try:
            return Settings.model_validate(self._document().unwrap())
        except ValidationError as error:
            first = error.errors()[0]
            place = [str(part) for part in first["loc"]]
            if place[:1] == ["libraries"]:
                del place[2:3]  # of which kind it was taken to be
            if first["type"] == "union_tag_invalid":
                place.append("kind")
            key = ".".join(place)
            reason = f"{key}: {first['msg']}" + (f" (it is {first['input']!r})" if first["loc"] else "")
            raise ConfigurationBroken(path=self.configuration, reason=reason) from None

    def add_library(self, name: str, library: VirtualLibrarySettings | DeviceLibrarySettings) -> None:
        """Define a library in capstan.toml; comments and order stay. AlreadyExists."""
        check_name("library", name)
        document, libraries = self._libraries()
        if name in libraries:
            raise AlreadyExists(what="library", name=name)
        table = tomlkit.table()
        table.update(library.model_dump(exclude_defaults=True) | {"kind": library.kind})
        libraries[name] = table
        self._save(document)

    def remove_library(self, name: str) -> None:
        """Take its definition out of capstan.toml. NotFound."""
        document, libraries = self._libraries()
        if name not in libraries:
            raise NotFound(what="library", name=name)
        del libraries[name]
        self._save(document)

    def library_lock(self, name: str) -> Path:
        """Who uses the devices of a real library."""
        return self.path / "libraries" / f"{name}.lock"

    def library_shelf(self, name: str) -> Path:
        """Which cartridges there are for a drive without a robot."""
        return self.path / "libraries" / f"{name}.json"

    def library_path(self, library: VirtualLibrarySettings) -> Path:
        """The folder of a virtual library."""
        return self.path / library.path

    def _document(self) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(self.configuration.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationBroken(path=self.configuration, reason=error.strerror or str(error)) from None
        except (UnicodeDecodeError, TOMLKitError) as error:
            raise ConfigurationBroken(path=self.configuration, reason=str(error)) from None

    def _libraries(self) -> tuple[tomlkit.TOMLDocument, MutableMapping[str, Any]]:
        document = self._document()
        libraries = document.setdefault("libraries", tomlkit.table(is_super_table=True))
        if isinstance(libraries, InlineTable):
            reason = "libraries is written in one line; give each library a section [libraries.NAME]"
            raise ConfigurationBroken(path=self.configuration, reason=reason)
        return document, libraries

    def _save(self, document: tomlkit.TOMLDocument) -> None:
        try:
            self._write(tomlkit.dumps(document))
        except OSError as error:
            raise StorageFailed(path=self.configuration, reason=error.strerror or str(error)) from None

    def _write(self, text: str) -> None:
        write_durably(self.configuration, text.encode())
