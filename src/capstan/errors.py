"""Every error Capstan raises on purpose.

CapstanError
├── UsageError                 what was asked for makes no sense, or names something that is not there
│   ├── InvalidValue · NotFound · AlreadyExists · Refused
├── HomeError                  the home directory: configuration, database, versions
│   ├── ConfigurationBroken · HomeTooNew · HomeDamaged · StorageFailed
├── KeysError                  secret keys
│   ├── KeysDamaged · WrongPassphrase · PassphraseMissing · IdentityUnusable
├── InUse                      another process owns it
├── Conflict                   a row changed under our hands
├── TransportError             no answer came from a device
├── DeviceError                the device answered: no
│   ├── PositionLost · NotReady · NoCartridgeLoaded · WriteProtected · MediumError · HardwareError
│   ├── EndOfMedium · BlankMedium · IncompatibleMedium · BlockTooLarge · IllegalRequest · ReservationConflict
│   ├── OperatorNeeded         it will not become ready by waiting: a NotReady
│   │   └── CartridgeWanted    a person has to put one in
│   ├── CommandAborted         ended on its way
│   ├── BlockChanged           a block was changed between host and drive: a MediumError that spares the medium
│   ├── DriveKeyNeeded         the drive has encrypted it, and has not got the key
│   ├── ChangerError           a move that cannot be made
├── FormatError                what is on the tape is not what it should be
│   ├── NotCapstanTape · WrongCartridge · Damaged · UnsupportedVersion · TapeAheadOfCatalog · TapeDiffersFromCatalog
│   ├── IdentityNeeded         it is sealed, for others
├── MediaError                 no cartridge, no drive
│   ├── NoCartridgeAvailable · CartridgeMissing · CartridgeTooSmall · NoDriveAvailable · EscrowUnproven · NoDriveFits
│   ├── NoCleaningCartridge · CleaningFailed
├── SourceError · TargetError  the file systems that are read from and written to
├── ParentMissing              a set that another builds on is not there
├── VerificationFailed         data came back, and is not what went out
│   ├── DamageFound            a tape is damaged, where no file that was asked for lies
│   ├── SetPartial             parts of a set are gone, and what they held is not known
│   ├── CopyIncomplete         what cannot be read cannot be copied
└── JobCancelled

An error is a `code` and parameters; the English text is the class's template, and translations are looked
up by code at the edge. `remedy` is what an engine may do about it, and the only thing an engine branches on.
`exit_code` is what the command line returns:

1 failed · 2 usage · 3 not found · 4 in use or conflict · 5 the operator must do something ·
6 data is damaged or missing · 7 the device failed · 8 the home is unusable · 130 cancelled.
"""

from __future__ import annotations

from capstan.device_errors import BlankMedium as BlankMedium
from capstan.device_errors import BlockChanged as BlockChanged
from capstan.device_errors import BlockTooLarge as BlockTooLarge
from capstan.device_errors import CartridgeWanted as CartridgeWanted
from capstan.device_errors import ChangerError as ChangerError
from capstan.device_errors import CommandAborted as CommandAborted
from capstan.device_errors import DeviceError as DeviceError
from capstan.device_errors import DriveKeyNeeded as DriveKeyNeeded
from capstan.device_errors import EndOfMedium as EndOfMedium
from capstan.device_errors import HardwareError as HardwareError
from capstan.device_errors import IllegalRequest as IllegalRequest
from capstan.device_errors import IncompatibleMedium as IncompatibleMedium
from capstan.device_errors import MediumError as MediumError
from capstan.device_errors import NoCartridgeLoaded as NoCartridgeLoaded
from capstan.device_errors import NotReady as NotReady
from capstan.device_errors import OperatorNeeded as OperatorNeeded
from capstan.device_errors import PositionLost as PositionLost
from capstan.device_errors import ReservationConflict as ReservationConflict
from capstan.device_errors import TransportError as TransportError
from capstan.device_errors import WriteProtected as WriteProtected
from capstan.error_base import CapstanError as CapstanError
from capstan.error_base import Delivery as Delivery
from capstan.error_base import Remedy as Remedy
from capstan.media_errors import CartridgeMissing as CartridgeMissing
from capstan.media_errors import CartridgeTooSmall as CartridgeTooSmall
from capstan.media_errors import CleaningFailed as CleaningFailed
from capstan.media_errors import EscrowUnproven as EscrowUnproven
from capstan.media_errors import MediaError as MediaError
from capstan.media_errors import NoCartridgeAvailable as NoCartridgeAvailable
from capstan.media_errors import NoCleaningCartridge as NoCleaningCartridge
from capstan.media_errors import NoDriveAvailable as NoDriveAvailable
from capstan.media_errors import NoDriveFits as NoDriveFits

# ── what was asked for ────────────────────────────────────────────────────────────────────────────────


class UsageError(CapstanError):
    code = "usage"
    exit_code = 2


class InvalidValue(UsageError):
    """Parameters: what, value, reason."""

    code = "invalid-value"
    message = "{what} {value!r} is not valid: {reason}"


class NotFound(UsageError):
    """Parameters: what, name."""

    code = "not-found"
    exit_code = 3
    message = "there is no {what} {name!r}"


class AlreadyExists(UsageError):
    """Parameters: what, name."""

    code = "already-exists"
    message = "{what} {name!r} exists already"


class Refused(UsageError):
    """The request is understood and would do harm. Parameters: reason."""

    code = "refused"
    message = "refused: {reason}"


# ── the home ──────────────────────────────────────────────────────────────────────────────────────────


class HomeError(CapstanError):
    code = "home"
    exit_code = 8


class ConfigurationBroken(HomeError):
    """Parameters: path, reason."""

    code = "configuration-broken"
    message = "the configuration file {path} cannot be used: {reason}"
    hint = "mend the file; nothing was changed"


class HomeTooNew(HomeError):
    """Parameters: path, version."""

    code = "home-too-new"
    message = "the home {path} was written by a newer Capstan ({version})"
    hint = "use that version; nothing was changed"


class HomeDamaged(HomeError):
    """Parameters: path, reason."""

    code = "home-damaged"
    message = "{path} is damaged: {reason}"
    hint = "set the file aside and run `capstan rebuild`: the tapes hold everything the catalog knew"


class KeysError(CapstanError):
    code = "keys"
    exit_code = 8


class KeysDamaged(KeysError):
    """Parameters: path, reason."""

    code = "keys-damaged"
    message = "the key file {path} cannot be used: {reason}"
    hint = "put a copy of it back; or move it away, and take the exported key in again with `capstan key import`"


class WrongPassphrase(KeysError):
    """Parameters: path."""

    code = "wrong-passphrase"
    exit_code = 5
    message = "that does not unlock {path}"
    hint = "give the passphrase or key file it was made with; any other export of the same keys does as well"


class PassphraseMissing(KeysError):
    """Parameters: what, hint."""

    code = "passphrase-missing"
    exit_code = 5
    message = "the passphrase of {what} is needed, and there is no terminal to ask for it"


class IdentityUnusable(KeysError):
    """Parameters: path, reason."""

    code = "identity-unusable"
    exit_code = 5
    message = "the identity file {path} cannot be used: {reason}"
    hint = "give a file with AGE-SECRET-KEY-1…, an export of `capstan key export`, or an SSH private key"


class StorageFailed(HomeError):
    """The operating system refused to keep or show something of ours. Parameters: path, reason."""

    code = "storage-failed"
    message = "cannot use {path}: {reason}"
    hint = "free space or mend the permissions, then run the command again"


class InUse(CapstanError):
    """Parameters: what, pid."""

    code = "in-use"
    exit_code = 4
    remedy = Remedy.OPERATOR
    message = "{what} is in use by pid {pid}"
    hint = "wait for it, or cancel its job (`capstan jobs`)"


class Conflict(CapstanError):
    """Parameters: what, name, reason."""

    code = "conflict"
    exit_code = 4
    remedy = Remedy.RETRY
    message = "{what} {name} was changed by someone else: {reason}"


# ── what is on the tape ───────────────────────────────────────────────────────────────────────────────


class FormatError(CapstanError):
    code = "format"
    exit_code = 6


class NotCapstanTape(FormatError):
    """Parameters: barcode, found."""

    code = "not-capstan-tape"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "cartridge {barcode} has no Capstan label: {found}"
    hint = "nothing was written; if its content may be lost, `capstan tape label {barcode} --pool POOL --overwrite`"


class WrongCartridge(FormatError):
    """Parameters: barcode, label, expected."""

    code = "wrong-cartridge"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "cartridge {barcode} holds another label: {label}; expected {expected}"
    hint = "nothing was written; check the barcode sticker; if it was labelled anew since, run `capstan rebuild`"


class Damaged(FormatError):
    """Parameters: barcode, block, what."""

    code = "damaged"
    message = "cartridge {barcode}, block {block}: {what}"
    hint = "other files can still be restored; `capstan verify {barcode}` names everything that is damaged"


class IdentityNeeded(FormatError):
    """Parameters: what, keys (ids)."""

    code = "identity-needed"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "{what} is sealed for the keys {keys}, and none that was given is one of them"
    hint = "give the identity with --identity FILE, or unlock the key store that has it (`capstan key list`)"


class UnsupportedVersion(FormatError):
    """Parameters: barcode, version."""

    code = "unsupported-version"
    message = "cartridge {barcode} is written in format {version}, which this program does not know"
    hint = "use a newer Capstan; RESTORE.txt on the tape says how to read it without"


class TapeAheadOfCatalog(FormatError):
    """Parameters: barcode, block."""

    code = "tape-ahead-of-catalog"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "cartridge {barcode} holds sets, from block {block}, that this catalog does not know"
    hint = "nothing was written; run `capstan rebuild --library NAME` first: the catalog is older than the tape"


class TapeDiffersFromCatalog(FormatError):
    """Parameters: barcode, block, what."""

    code = "tape-differs-from-catalog"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "cartridge {barcode}, block {block}: the tape is not what the catalog says ({what})"
    hint = "nothing was written; run `capstan verify {barcode}`, then `capstan rebuild`"


# ── sources, targets, data, jobs ──────────────────────────────────────────────────────────────────────


class SourceError(CapstanError):
    """A source as a whole cannot be read (a single file is a warning). Parameters: path, reason."""

    code = "source"
    exit_code = 1
    message = "cannot read the source {path}: {reason}"
    hint = "mount it or mend its permissions, then run the command again"


class TargetError(CapstanError):
    """Parameters: path, reason."""

    code = "target"
    exit_code = 1
    message = "cannot write to {path}: {reason}"
    hint = "free space or mend the permissions, then run the command again: what is whole is kept"


class VerificationFailed(CapstanError):
    """Parameters: count, first."""

    code = "verification-failed"
    exit_code = 6
    message = "{count} files are damaged or missing, first {first}"
    hint = "all others are good; `capstan verify BARCODE` names every place on tape that is damaged"


class ParentMissing(CapstanError):
    """Parameters: set, parent, reason."""

    code = "parent-missing"
    exit_code = 5
    message = "set {set} builds on set {parent}, which cannot be used: {reason}"
    hint = "import its cartridges and rebuild; `restore --only-this-set` restores what this set itself has stored"


class DamageFound(VerificationFailed):
    """Every file is good, but not the tape. Parameters: count, first."""

    code = "damage-found"
    message = "no file is damaged, but {count} places on tape are, first {first}"
    hint = "copy what is on the cartridge to another one, and do not write to it again"


class SetPartial(VerificationFailed):
    """What is left of a set is good, and is not all of it. Parameters: set, reason."""

    code = "set-partial"
    message = "set {set} is not whole: {reason}"
    hint = "import its cartridges, run `capstan rebuild`, then run the command again; what is left of it is good"


class CopyIncomplete(VerificationFailed):
    """Parameters: set, count, first."""

    code = "copy-incomplete"
    message = "{count} segments of set {set} can be read nowhere and were not copied, first {first}"
    hint = "all others are copied; `capstan verify SET` names the files that are damaged"


class JobCancelled(CapstanError):
    """Parameters: job."""

    code = "cancelled"
    exit_code = 130
    message = "job {job} was cancelled"
    hint = "what was committed to tape stays; a backup goes on from there with `capstan job resume {job}`"
