"""Deletion requests that the owner signs on a subject's behalf, and slips for subjects.

A request made here says so (`onBehalf`): whoever reads the receipt sees that the subject did not
sign. A request of the subject's own comes through the auditor's program.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from owner.files import check_free, read_file, write_atomic
from owner.journal import LISTED, check_log, check_message_free, publish_message, sign
from owner.workspace import Workspace
from protocol import openings, records
from protocol.digests import sha256_hex
from protocol.errors import OwnerError
from protocol.keys import SigningKey
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.messages.request import Request, Scope, serialise_list


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to forget; exactly one field is set. `rows` count the data file's records from 0."""

    rows: tuple[int, ...] | None = None
    subject: str | None = None
    klass: int | None = None
    trigger: str | None = None


def _select(workspace: Workspace, wanted: Wanted) -> tuple[Scope, list[int]]:
    own = workspace.records
    if wanted.rows is not None:
        rows = list(wanted.rows)
        if not rows:
            raise OwnerError("no record is named")
        if len(set(rows)) != len(rows) or not all(0 <= row < len(own.labels) for row in rows):
            raise OwnerError(f"records are numbered 0 to {len(own.labels) - 1}, each named once")
        return Scope(kind="records"), rows
    if wanted.subject is not None:
        rows = [row for row, subject in enumerate(own.subjects) if subject == wanted.subject]
        if not rows or not wanted.subject:
            known = "; the data file names no subjects" if not own.group_salts else ""
            raise OwnerError(f"no committed record belongs to the subject {wanted.subject!r}{known}")
        group = records.group_commitment(own.group_salts[wanted.subject], wanted.subject)
        return Scope(kind="subject", group=group.hex()), rows
    if wanted.klass is not None:
        if not 0 <= wanted.klass < workspace.base.classes:
            raise OwnerError(f"classes are numbered 0 to {workspace.base.classes - 1}")
        rows = [int(row) for row in np.flatnonzero(own.labels == wanted.klass)]
        return Scope(kind="class", klass=wanted.klass), rows
    if wanted.trigger is not None:
        # Salted: a public log must not let anybody guess the trigger's name.
        secret = read_file(workspace.private / "secret.bin", limit=32)
        return Scope(kind="trigger", trigger=records.derive_salt(secret, "trigger", wanted.trigger).hex()), []
    raise OwnerError("say what to forget: --records, --subject, --class or --trigger")


def make_request(
    workspace: Workspace,
    wanted: Wanted,
    *,
    key: SigningKey,
    log: Path,
    out: Path,
    now: int,
    deadline: int | None,
    force: bool,
) -> bytes:
    """Sign and log a request on the subject's behalf; write it, its record list and its proof.

    Args:
        workspace: the commitment folder.
        wanted: what to forget.
        key: the owner's statement key.
        log: the owner's log.
        out: the request's file; list and proof go beside it.
        now: seconds since 1970.
        deadline: by when the law wants an answer, or None.
        force: overwrite.

    Raises:
        OwnerError: nothing matches, or the log cannot be written.
    """
    check_message_free(out, force=force)
    check_log(log, key)
    if deadline is not None and deadline < now:
        raise OwnerError("the deadline lies before the request")
    scope, rows = _select(workspace, wanted)
    listed = tuple(sorted(workspace.commitments_of(rows)))
    request = Request(
        subject=sha256_hex(workspace.envelope),
        scope=scope,
        records_root=records.list_root(listed),
        record_count=len(listed),
        on_behalf=True,
        requested_at=now,
        deadline=deadline,
    )
    envelope = sign(request.payload(), key)
    proof = publish_message(out, envelope, log, beside={LISTED: serialise_list(listed)}, force=force)
    workspace.keep_request(envelope, listed, proof)
    return envelope


def make_slip(workspace: Workspace, wanted: Wanted, *, out: Path, force: bool) -> int:
    """Write a subject's slip: own records opened, and proof that the commitment is logged.

    Returns:
        How many records it opens.

    Raises:
        OwnerError: nothing matches, or something is there already.
    """
    check_free(out, force=force)
    _, rows = _select(workspace, wanted)
    slip = openings.Slip(
        openings=tuple(workspace.open_rows(rows)),
        commitment=workspace.envelope,
        commitment_proof=read_file(workspace.folder / "proofs" / "commitment.tlog-proof", limit=MAX_TLOG_PROOF),
    )
    write_atomic(out, openings.serialise_slip(slip), secret=True)
    return len(rows)
