"""A request comes back from its job's row as it was."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields

import pytest

from capstan.backup.request import BackupRequest
from capstan.core.backup import SetType
from capstan.errors import Refused
from capstan.format.layout import ArchiveParameters

REQUEST = BackupRequest(
    sources=(b"/srv/data", "/srv/ü".encode(), b"/srv/n\xe4me \n", rb"/srv/n\xe4me"),
    name="t",
    library="lib",
    pool="p",
    type=SetType.INCREMENTAL,
    excludes=("*.tmp", "\udce4*", "ü"),
    one_file_system=True,
    recipients=("age1example",),
    parameters=ArchiveParameters("gzip", 6, 1 << 20, 1 << 21, 1 << 22, 5.0),
)


def test_a_request_survives_its_job() -> None:
    """Everything that was asked for goes through JSON and back, names that are not UTF-8 too; no field is forgotten."""
    plain = json.dumps(REQUEST.as_parameters())
    plain.encode("ascii")
    assert BackupRequest.from_parameters(json.loads(plain)) == REQUEST
    for field in fields(BackupRequest):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        assert getattr(REQUEST, field.name) != default, "the request of this test must differ from all defaults"


@pytest.mark.parametrize("parameters", [{}, {"sources": ["/a"]}, REQUEST.as_parameters() | {"sources": [{"hex": ""}]}])
def test_half_a_request_is_refused(parameters: dict[str, object]) -> None:
    """A job that does not say all it was asked to do is not guessed at."""
    with pytest.raises(Refused):
        BackupRequest.from_parameters(parameters)
