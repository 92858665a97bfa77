"""Whether a set may be written to a pool: one rule for backups, those that go on, and copies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from capstan.core.backup import BackupSet, Encryption
from capstan.core.media import Pool
from capstan.errors import EscrowUnproven, Refused

# Ids of the keys of which an export has opened something; asked only where a pool demands that, since it reads the key
# store.
ProvenKeys = Callable[[], Collection[str]]


def check_writable(pool: Pool, backup_set: BackupSet, proven_keys: ProvenKeys) -> None:
    """Whether a set of this pool may be begun, or go on: Refused where it is in clear and the pool demands encryption
    or is blocked, EscrowUnproven where none of its keys is proven and the pool demands that.

    A set that was told whom it is sealed for need not be sealed for the pool's own recipients.
    """
    clear = backup_set.encryption is Encryption.NONE
    if pool.blocked and clear:
        hint = f"say what it is to do: `capstan pool change {pool.name} --recipient …`, or --no-recipients"
        raise Refused(reason=f"pool {pool.name}: {pool.blocked}", hint=hint)
    if clear and pool.policy.encrypts:
        reason = f"set {backup_set.id[:8]} is not encrypted, and pool {pool.name} is only for what is"
        raise Refused(reason=reason, hint="begin a new backup, or change what the pool demands")
    _check_escrow(pool, backup_set.keys, proven_keys)


def check_copyable(pool: Pool, backup_set: BackupSet, proven_keys: ProvenKeys) -> None:
    """Whether a set may be copied to this pool. As `check_writable`; Refused too where it opens for others than the
    pool's recipients, or is encrypted by the drive."""
    name = f"set {backup_set.id[:8]}"
    if backup_set.encryption is Encryption.DRIVE:
        reason = f"{name} is encrypted by the drive, and its copy would not be"
        raise Refused(reason=reason, hint="back up to a pool with recipients: sealed sets are copied as they are")
    if pool.blocked:
        hint = f"say what it is to do: `capstan pool change {pool.name}`"
        raise Refused(reason=f"pool {pool.name}: {pool.blocked}", hint=hint)
    if reason := unfit_for(pool, backup_set.encryption, backup_set.recipients):
        raise Refused(reason=f"{name} {reason}", hint="choose another pool, or change what this one demands")
    _check_escrow(pool, backup_set.keys, proven_keys)


def unfit_for(target: Pool, encryption: Encryption, recipients: Sequence[str]) -> str:
    """Why a copy of something encrypted so must not lie in a pool that promises more; empty when it may."""
    others = sorted(set(recipients) - set(target.recipients))
    if target.policy.encrypts and encryption is Encryption.NONE:
        return f"is not encrypted, and pool {target.name} is only for what is"
    if target.recipients and others:
        return f"opens for others than the recipients of pool {target.name}: {', '.join(others)}"
    return ""


def _check_escrow(pool: Pool, keys: Sequence[str], proven_keys: ProvenKeys) -> None:
    if pool.require_escrow and not set(proven_keys()).intersection(keys):
        raise EscrowUnproven(pool=pool.name, keys=", ".join(keys) or "none: the set has no recipients")
