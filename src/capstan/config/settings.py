"""What an operator may set in `capstan.toml`. Values are handed down from here; nothing below reads a setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from capstan.core.ids import check_name
from capstan.core.sizes import parse_size
from capstan.errors import CapstanError, InvalidValue
from capstan.format.codecs import parse_codec
from capstan.format.layout import MAX_FRAME_BYTES, check_record_bytes
from capstan.scsi.address import check_address

_MOST = 1 << 50  # bytes; more is no tape
_MOST_ELEMENT = (1 << 16) - 1  # SMC-3: an element address has two bytes


S = TypeVar("S")
T = TypeVar("T")


def _checked(check: Callable[[S], T]) -> Callable[[S], T]:
    """`check` as a validator: what it says of a value is what the operator reads."""

    def validate(value: S) -> T:
        try:
            return check(value)
        except CapstanError as error:
            raise ValueError(str(error)) from None

    return validate


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _codec(value: str) -> str:
    parse_codec(value)
    return value


def _folder(value: str) -> str:
    if not value or not value.isprintable():
        raise InvalidValue(what="path", value=value, reason="name a folder")
    return value


def parse_elements(value: str) -> range:
    """`1000-1019`, or one address. InvalidValue."""
    first, _, last = value.partition("-")
    if first.isdecimal() and (not last or last.isdecimal()) and int(first) <= int(last or first) <= _MOST_ELEMENT:
        return range(int(first), int(last or first) + 1)
    raise InvalidValue(what="elements", value=value, reason="say FIRST-LAST, as `capstan library show` numbers them")


def _elements(value: str) -> str:
    parse_elements(value)
    return value


def _changer(value: str) -> str:
    return check_address(value) if value else ""


def _library(value: str) -> str:
    return check_name("library", value)


Size = Annotated[int, Field(strict=True), BeforeValidator(_checked(_size))]


class ArchiveSettings(BaseModel):
    """`[archive]`: how sets are written. Tapes written with other values stay readable."""

    model_config = ConfigDict(extra="forbid")

    codec: Annotated[str, AfterValidator(_checked(_codec))] = Field(
        "zstd:3", description="codec and level: zstd:-7 … zstd:19, lz4, gzip:1 … gzip:9, none"
    )
    record_bytes: Annotated[Size, AfterValidator(_checked(check_record_bytes))] = Field(
        512 << 10, description="size of tape records of newly labelled cartridges"
    )
    frame_bytes: Size = Field(
        4 << 20, ge=64 << 10, le=MAX_FRAME_BYTES, description="how much of the tar stream is compressed at once"
    )
    segment_bytes: Size = Field(2 << 30, ge=64 << 10, le=_MOST, description="payload after which a tape file is closed")
    spooled_segment_bytes: Size = Field(
        3 << 30,
        ge=64 << 10,
        le=_MOST,
        description="tar in a segment of the container 7z; twice as much is made in the spool",
    )
    commit_bytes: Size = Field(
        32 << 30, ge=64 << 10, le=_MOST, description="payload after which a commit point is written within a set"
    )
    commit_seconds: float = Field(
        600, gt=0, allow_inf_nan=False, description="time after which a commit point is written within a set"
    )


class EngineSettings(BaseModel):
    """`[engine]`: how work is done on this machine."""

    model_config = ConfigDict(extra="forbid")

    workers: int = Field(
        0, strict=True, ge=0, le=64, description="threads that compress; 0: one for each processor, at most 8"
    )
    chain_limit: int = Field(
        30, strict=True, ge=2, description="sets in a chain of incrementals after which a new full is asked for"
    )


class VirtualLibrarySettings(BaseModel):
    """`[libraries.NAME]` with `kind = "virtual"`: an embedded virtual library."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["virtual"] = "virtual"
    path: Annotated[str, AfterValidator(_checked(_folder))] = Field(description="its folder, relative to the home")


class DeviceLibrarySettings(BaseModel):
    """`[libraries.NAME]` with `kind = "devices"`: a real library."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["devices"]
    changer: Annotated[str, AfterValidator(_checked(_changer))] = Field(
        "", description="address of the robot; left out for a single drive, whose cartridges people put in"
    )
    drives: Annotated[list[Annotated[str, AfterValidator(_checked(check_address))]], Field(min_length=1)] = Field(
        description="addresses of the drives"
    )
    reserve: bool = Field(True, description="keep other hosts from using a drive while it is open here, if it can")
    compression: bool | None = Field(None, description="of the drives; left out: as they are set")
    early_warning: Size = Field(
        0, ge=0, le=_MOST, description="drives that can warn that much before their own early warning"
    )
    elements: list[Annotated[str, AfterValidator(_checked(_elements))]] = Field(
        default_factory=list,
        description='element addresses that are ours, of a library that others use too: "1000-1019"; [] for all',
    )


def _kind(value: object) -> object:
    return value.get("kind", "virtual") if isinstance(value, dict) else getattr(value, "kind", None)


LibrarySettings = Annotated[
    Annotated[VirtualLibrarySettings, Tag("virtual")] | Annotated[DeviceLibrarySettings, Tag("devices")],
    Discriminator(_kind),
]


class Settings(BaseModel):
    """The whole file. Everything has a default; an empty file is a good one."""

    model_config = ConfigDict(extra="forbid")

    archive: ArchiveSettings = Field(default_factory=lambda: ArchiveSettings.model_validate({}))
    engine: EngineSettings = Field(default_factory=lambda: EngineSettings.model_validate({}))
    libraries: dict[Annotated[str, AfterValidator(_checked(_library))], LibrarySettings] = Field(
        default_factory=dict, description="the tape libraries"
    )
