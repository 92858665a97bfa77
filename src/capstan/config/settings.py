"""What an operator may set in `capstan.toml`. Values are handed down from here; nothing below reads a setting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from capstan.core.sizes import parse_size
from capstan.errors import CapstanError


def _size(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_size(value)
        except CapstanError as error:
            raise ValueError(str(error)) from None
    return value


Size = Annotated[int, BeforeValidator(_size)]


class ArchiveSettings(BaseModel):
    """`[archive]`: how sets are written. Tapes written with other values stay readable."""

    model_config = ConfigDict(extra="forbid")

    codec: str = Field("zstd:3", description="codec and level: zstd:-7 … zstd:19, lz4, gzip:1 … gzip:9, none")
    record_bytes: Size = Field(512 << 10, description="size of tape records of newly labelled cartridges")
    frame_bytes: Size = Field(4 << 20, description="how much of the tar stream is compressed at once")
    segment_bytes: Size = Field(2 << 30, description="payload after which a tape file is closed")
    commit_bytes: Size = Field(32 << 30, description="payload after which a commit point is written within a set")
    commit_seconds: float = Field(600, gt=0, description="time after which a commit point is written within a set")


class EngineSettings(BaseModel):
    """`[engine]`: how work is done on this machine."""

    model_config = ConfigDict(extra="forbid")

    workers: int = Field(0, ge=0, le=64, description="threads that compress; 0: one for each processor, at most 8")
    chain_limit: int = Field(
        30, ge=2, description="sets in a chain of incrementals after which a new full is asked for"
    )


class VirtualLibrarySettings(BaseModel):
    """`[libraries.NAME]` with `kind = "virtual"`: an embedded virtual library."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["virtual"] = "virtual"
    path: str = Field(description="its folder, relative to the home")


class Settings(BaseModel):
    """The whole file. Everything has a default; an empty file is a good one."""

    model_config = ConfigDict(extra="forbid")

    archive: ArchiveSettings = Field(default_factory=lambda: ArchiveSettings.model_validate({}))
    engine: EngineSettings = Field(default_factory=lambda: EngineSettings.model_validate({}))
    libraries: dict[str, VirtualLibrarySettings] = Field(default_factory=dict, description="the tape libraries")
