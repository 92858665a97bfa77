"""The composition root: the only module that names adapters and puts the parts together, by hand."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from capstan import file_system
from capstan.backup.engine import BackupEngine
from capstan.backup.equipment import Equipment
from capstan.backup.filesystem import FilesystemSource
from capstan.backup.register import SetRegister
from capstan.backup.request import BackupRequest
from capstan.backup.source import Inode
from capstan.catalog.chains import chain_of
from capstan.catalog.sql_catalog import SqlCatalog
from capstan.clock import Clock, SystemClock
from capstan.config.home import Home
from capstan.config.settings import DeviceLibrarySettings, Settings, VirtualLibrarySettings
from capstan.core.backup import SetState
from capstan.core.ids import check_name
from capstan.core.job import Event
from capstan.core.media import Cartridge, CartridgeState
from capstan.crypto.identities import Identity
from capstan.errors import AlreadyExists, CapstanError, InvalidValue, NotFound, Refused, StorageFailed, TargetError
from capstan.file_system import calls
from capstan.fileindex.search import FileSearch
from capstan.fileindex.store import FileIndexStore
from capstan.format.containers import STREAM, parse_packing
from capstan.format.layout import ArchiveParameters
from capstan.home_keys import named_drive_key, named_recipients, proven_keys, retired_keys
from capstan.jobs.context import JobContext
from capstan.jobs.runner import JobRunner
from capstan.library_devices import DeviceOpener, definition_of
from capstan.media.adoption import Adoption
from capstan.media.ledger import Ledger
from capstan.media.library import OpenDevices
from capstan.media.manager import TapeManager
from capstan.media.operations import TapeOperations
from capstan.recovery.copying import CopyEngine
from capstan.recovery.earlier import DirectoryJournal, EarlierRun
from capstan.recovery.engine import RestoreEngine
from capstan.recovery.filesystem import FilesystemTarget
from capstan.recovery.rebuild import RebuildEngine
from capstan.recovery.select import RestoreRequest, resolve_set
from capstan.recovery.target import RecoveryTarget, Tell
from capstan.recovery.verify import VerifyEngine
from capstan.scsi.address import check_address
from capstan.scsi.tracing import Trace
from capstan.scsi.virtual.faults import FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary, barcodes_of
from capstan.tape.changer import Inventory

_MAX_WORKERS = 8


@dataclass(slots=True)
class Capstan:
    """One open home with everything that works on it."""

    home: Home
    settings: Settings
    clock: Clock
    catalog: SqlCatalog
    store: FileIndexStore
    search: FileSearch
    jobs: JobRunner
    manager: TapeManager
    operations: TapeOperations
    backup: BackupEngine
    restore: RestoreEngine
    verify: VerifyEngine
    rebuild: RebuildEngine
    copying: CopyEngine

    async def back_up(
        self, request: BackupRequest, job: JobContext, identities: Sequence[Identity] = (), *, resume: bool = False
    ) -> dict[str, Any]:
        """Run or resume a backup, and then make the copy, and the verification, that its pool demands.

        VerificationFailed when what was written cannot be read: the set is kept, and the cartridge is suspect.
        """
        run = self.backup.resume if resume else self.backup.run
        result = await self.copying.after_backup(await run(request, job, identities), job, library=request.library)
        async with self.catalog.snapshot() as catalog:
            pool = await catalog.media.find_pool(request.pool)
        if pool is None or not pool.verify_writes or result["state"] != SetState.COMPLETE:
            return result
        try:
            verified = await self.verify.run_written(
                result["set_id"], 0, job, library=request.library, identities=identities
            )
        except CapstanError as error:
            error.result = {**result, "verification": error.result}
            raise
        return {**result, "verification": verified}

    def parameters(self, codec: str | None = None, container: str | None = None) -> ArchiveParameters:
        """The settings of `[archive]` with another codec or container, if one is given. Raises InvalidValue."""
        archive = self.settings.archive
        packing = parse_packing(container or STREAM, codec, stream_codec=archive.codec)
        return ArchiveParameters(
            codec=packing.codec,
            level=packing.level,
            container=packing.container,
            archive_bytes=archive.spooled_segment_bytes,
            frame_bytes=archive.frame_bytes,
            segment_bytes=archive.segment_bytes,
            commit_bytes=archive.commit_bytes,
            commit_seconds=archive.commit_seconds,
        )

    def recipients(self, texts: Sequence[str]) -> list[str]:
        """As of `home_keys.named_recipients`."""
        return named_recipients(self.home, texts)

    def drive_key(self, name: str) -> str:
        """As of `home_keys.named_drive_key`."""
        return named_drive_key(self.home, name)

    async def keys_to_write(self, pool: str) -> set[str]:
        """Ids of the secret keys that writing to a pool needs: that of the drive, if it encrypts."""
        async with self.catalog.snapshot() as catalog:
            found = await catalog.media.find_pool(pool)
        return {found.drive_key} if found and found.drive_key else set()

    async def keys_of(self, reference: str, *, with_parents: bool = True) -> set[str]:
        """Ids of the keys that open a set and what it builds on, each all of one. NotFound, ParentMissing."""
        async with self.catalog.snapshot() as catalog:
            backup_set = await resolve_set(catalog, reference)
            chain = await chain_of(catalog, backup_set) if with_parents else [backup_set]
        return {key for backup_set in chain for key in backup_set.keys}

    async def create_virtual_library(self, spec: LibrarySpec) -> list[str]:
        """Build a virtual library, define it, and enter its cartridges as scratch. Returns their barcodes.

        AlreadyExists for a name that is taken, or a barcode that the catalog knows: a cartridge is known by its barcode
        alone, so the sets on the one that has it would be looked for on the new one.
        The definition comes last but the catalog's rows: after a failure there is no library, and no folder.
        """
        check_name("library", spec.name)
        if spec.name in self.settings.libraries:
            raise AlreadyExists(what="library", name=spec.name)
        async with self.catalog.snapshot() as known:
            for barcode in barcodes_of(spec):
                if await known.media.find(barcode) is not None:
                    raise AlreadyExists(what="cartridge", name=barcode, hint="choose another --barcode-prefix")
        definition = VirtualLibrarySettings(path=f"libraries/{spec.name}")
        folder = self.home.library_path(definition)
        _check_free(folder)
        try:
            barcodes = VirtualLibrary.create(folder, spec)
            self.home.add_library(spec.name, definition)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)  # nothing was ever written to its cartridges
            if isinstance(error, OSError):
                raise StorageFailed(path=folder, reason=error.strerror or str(error)) from None
            raise
        self.settings.libraries[spec.name] = definition
        await self.operations.inventory(spec.name)
        async with self.catalog.transaction() as catalog:
            for barcode in barcodes:
                cartridge: Cartridge = await catalog.media.get(barcode)
                if cartridge.state is CartridgeState.UNKNOWN:
                    cartridge.state = CartridgeState.SCRATCH
                    await catalog.media.save(cartridge)
        return barcodes

    async def add_library(self, name: str, changer: str, drives: Sequence[str], **options: object) -> Inventory:
        """Define a real library, once its devices have answered; with `changer` "" a single drive that people put the
        cartridges into. What is in it becomes known, as unknown cartridges.
        `options`: further fields of `DeviceLibrarySettings`, checked by the caller.

        AlreadyExists; InvalidValue; what the devices say: then nothing was defined.
        """
        check_name("library", name)
        if name in self.settings.libraries:
            raise AlreadyExists(what="library", name=name)
        if not changer and len(drives) > 1:
            reason = "people put cartridges into a single drive; give the robot of several with --changer"
            raise InvalidValue(what="drives", value=", ".join(drives), reason=reason)
        addresses = {"changer": changer and check_address(changer), "drives": [check_address(item) for item in drives]}
        definition = DeviceLibrarySettings.model_validate({"kind": "devices", **addresses, **options})
        self.settings.libraries[name] = definition
        try:
            inventory = await self.operations.inventory(name)
            self.home.add_library(name, definition)
        except BaseException:
            del self.settings.libraries[name]
            raise
        return inventory

    async def remove_library(self, name: str) -> None:
        """Take the definition of a real library out. Its cartridges are known as being outside from now on. Refused for
        a virtual one: its folder holds the tapes."""
        if not isinstance(self.library(name), DeviceLibrarySettings):
            hint = f"its tapes are files: remove its folder, and [libraries.{name}] in capstan.toml, by hand"
            raise Refused(reason=f"library {name} is a virtual one", hint=hint)
        self.home.remove_library(name)
        del self.settings.libraries[name]
        async with self.catalog.transaction() as catalog:
            for cartridge in await catalog.media.list(library=name):
                cartridge.place = ""
                await catalog.media.save(cartridge)

    def library(self, name: str) -> VirtualLibrarySettings | DeviceLibrarySettings:
        """The definition of a library. NotFound names those that are like it."""
        return definition_of(self.settings, name)

    def check_target(self, path: Path) -> None:
        """TargetError for a place in the home: what is restored there would be taken for what Capstan keeps."""
        _check_target(self.home, path)

    async def tidy(self) -> None:
        """What the death of another process left: jobs that are no more, sets that nobody writes."""
        await self.jobs.reap()
        async with self.catalog.transaction() as catalog:
            for backup_set in await catalog.backups.list(states=[SetState.WRITING]):
                try:
                    alive = self.jobs.is_alive(await catalog.jobs.get(backup_set.job_id))
                except NotFound:
                    alive = False  # the set is older than this catalog's jobs
                if not alive:
                    backup_set.state = SetState.INCOMPLETE
                    await catalog.backups.save(backup_set)


@asynccontextmanager
async def open_home(
    path: Path,
    *,
    clock: Clock | None = None,
    listener: Callable[[Event], None] | None = None,
    faults: FaultPlan | None = None,
    sleep: Callable[[float], None] = time.sleep,
    trace: Path | None = None,
) -> AsyncIterator[Capstan]:
    """Open the home at an absolute path, made if it is not there; close everything at the end.

    `faults` befall the devices of virtual libraries; `sleep` waits for a drive that is busy; `trace`: a new
    file for what goes over the wire.
    """
    home = Home(path)
    home.prepare()
    settings = home.settings()
    clock = clock or SystemClock()
    catalog = SqlCatalog(home.database)
    await catalog.open()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(catalog.close)
        tracing = None if trace is None else stack.enter_context(closing(Trace(trace)))
        open_devices = DeviceOpener(home, settings, faults=faults, sleep=sleep, trace=tracing)
        capstan = _wire(home, settings, clock, catalog, listener, open_devices)
        stack.push_async_callback(capstan.manager.close)
        yield capstan


def _wire(
    home: Home,
    settings: Settings,
    clock: Clock,
    catalog: SqlCatalog,
    listener: Callable[[Event], None] | None,
    open_devices: OpenDevices,
) -> Capstan:
    host = socket.gethostname()
    store = FileIndexStore(home.indexes)
    ledger = Ledger(catalog, store)

    manager = TapeManager(
        catalog=catalog,
        clock=clock,
        open_devices=open_devices,
        record_bytes=settings.archive.record_bytes,
        on_ahead=Adoption(catalog=catalog, ledger=ledger, store=store, spool=home.spool).take_in,
    )

    def open_source(request: BackupRequest) -> FilesystemSource:
        return FilesystemSource(
            request.sources,
            excludes=request.excludes,
            one_file_system=request.one_file_system,
            skip=_inodes(home, settings),
            spool=home.spool,
        )

    def open_target(request: RestoreRequest, tell: Tell, *, job_id: str, earlier: EarlierRun | None) -> RecoveryTarget:
        _check_target(home, request.to)
        return FilesystemTarget(
            file_system.target_path(request.to),
            tell=tell,
            conflicts=request.conflicts,
            strip=request.strip,
            earlier=earlier,
            journal=DirectoryJournal.read(home.jobs / f"{job_id}.directories"),
        )

    verify = VerifyEngine(catalog=catalog, manager=manager, store=store, clock=clock, spool=home.spool)
    sets = SetRegister(
        catalog,
        store,
        clock,
        host=host,
        chain_limit=settings.engine.chain_limit,
        proven_keys=partial(proven_keys, home),
        retired_keys=partial(retired_keys, home),
        drive_keys=manager.keys,
    )
    return Capstan(
        home=home,
        settings=settings,
        clock=clock,
        catalog=catalog,
        store=store,
        search=FileSearch(spool=home.spool),
        jobs=JobRunner(catalog=catalog, clock=clock, folder=home.jobs, host=host, listener=listener),
        manager=manager,
        operations=TapeOperations(catalog=catalog, manager=manager),
        backup=BackupEngine(
            Equipment(
                catalog=catalog,
                manager=manager,
                ledger=ledger,
                store=store,
                sets=sets,
                clock=clock,
                spool=home.spool,
                workers=settings.engine.workers or min(os.cpu_count() or 1, _MAX_WORKERS),
                open_source=open_source,
                proven_keys=partial(proven_keys, home),
            )
        ),
        restore=RestoreEngine(
            catalog=catalog, manager=manager, store=store, clock=clock, spool=home.spool, open_target=open_target
        ),
        verify=verify,
        rebuild=RebuildEngine(
            catalog=catalog,
            manager=manager,
            ledger=ledger,
            store=store,
            clock=clock,
            spool=home.spool,
            is_virtual=lambda name: name in settings.libraries and settings.libraries[name].kind == "virtual",
        ),
        copying=CopyEngine(
            verify=verify,
            catalog=catalog,
            manager=manager,
            ledger=ledger,
            store=store,
            clock=clock,
            spool=home.spool,
            proven_keys=partial(proven_keys, home),
        ),
    )


def _check_free(folder: Path) -> None:
    """A folder that is there may hold the tapes of a library whose definition was lost: nobody's to overwrite."""
    if os.path.lexists(folder):
        raise AlreadyExists(what="folder", name=str(folder), hint="move it away, or choose another name")


def _check_target(home: Home, path: Path) -> None:
    if path.resolve().is_relative_to(home.path.resolve()):
        raise TargetError(path=path, reason="it lies in the home of Capstan")


def _inodes(home: Home, settings: Settings) -> frozenset[Inode]:
    """The directories that a backup must not walk into: the home, and virtual libraries wherever they lie."""
    found = set()
    virtual = [item for item in settings.libraries.values() if isinstance(item, VirtualLibrarySettings)]
    for path in (home.path, *map(home.library_path, virtual)):
        try:
            status = calls.stat(os.fspath(path), follow_symlinks=True)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)
