"""monitor: what happened in the logs since: records that were forgotten and came back, audits without a report.

Proves (finding `re-ingestion`): the owner signed, in its log, a commitment younger than the certificate that
answered a receipt's request, and a record of that receipt is in it, by its own salted commitment. Needs a slip
or other opening of the later commitment: roots alone show no record. The finding `audit-shopping` proves
nothing about anybody: an audit was opened in a log and its time is over without a report there. Assumes that
the logs were verified (`protocol.log.verify`) and that the trust file's keys sign for their roles; whether a
key was valid at the time is not asked here, since a log read later does not say when its entries were seen.
Source: SPEC 13.4.15.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from auditor import receipts, succession
from auditor.entries import Entry, read_entries
from auditor.ledger import leaf_of
from auditor.view import Finding
from protocol import messages, openings, receipt_file
from protocol.encoding import format_time
from protocol.errors import Error, UnknownKey
from protocol.log.policy import Policy
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.commitment import Commitment
from protocol.messages.opening import Opening
from protocol.messages.report import Report
from protocol.messages.request import Request
from protocol.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the monitor found.

    Args:
        findings: with those first that signed bytes prove.
        proven: how many of them.
        notes: sentences that are no finding: what is still open, what could not be looked at.
    """

    findings: tuple[Finding, ...]
    proven: int
    notes: tuple[str, ...]


def forgotten_records(
    files: Sequence[tuple[str, bytes]], *, policy: Policy, trust: Trust
) -> dict[bytes, tuple[str, str]]:
    """The records that verified receipts speak of: by record commitment, leaf of the certificate and of its commitment.

    Raises:
        Error: a receipt does not verify; names it.
    """
    found = {}
    for name, data in files:
        try:
            receipts.verify(data, policy=policy, trust=trust)
            file = receipt_file.parse(data)
            _, certificate = messages.read(file.envelopes["certificate"], Certificate)
        except Error as error:
            error.where = f"{name}, {error.where}" if error.where else name
            raise
        # Where the report refutes, the certificate may be about something else: then it forgot nothing here.
        if (
            leaf_of(file.envelopes["request"]) in certificate.requests
            and leaf_of(file.envelopes["commitment"]) == certificate.commitment
        ):
            leaves = (leaf_of(file.envelopes["certificate"]), certificate.commitment)
            found.update(dict.fromkeys(file.records, leaves))
    return found


def _returned(
    entries: Sequence[Entry],
    forgotten: Mapping[bytes, tuple[str, str]],
    slips: Sequence[tuple[str, bytes]],
    notes: list[str],
) -> Iterator[Finding]:
    places = {entry.leaf: entry for entry in entries}
    for name, data in slips:
        slip = openings.parse_slip(data, where=name)
        leaf = leaf_of(slip.commitment)
        later = places.get(leaf)
        if later is None or not isinstance(later.message, Commitment):
            raise UnknownKey("its commitment is not an entry of the owner's in this log", where=name)
        roots = later.message
        try:
            own = {
                opened.verify(roots.records_root, groups=roots.group_count, count=roots.record_count)
                for opened in slip.openings
            }
        except Error as error:
            error.where = f"{name}, {error.where}" if error.where else name
            raise
        back = 0
        for record in own & forgotten.keys():
            certificate, before = forgotten[record]
            answered = places.get(certificate)
            # Order is by index within one log; the commitment that the certificate itself is about is no return.
            if answered is not None and answered.origin == later.origin and leaf != before:
                back += answered.index < later.index
            elif leaf != before:
                notes.append(
                    f"{name}: the certificate {certificate[:16]} is not in this log, so nothing shows the order."
                )
        if back:
            yield Finding(
                threat="re-ingestion",
                check="monitor",
                message=f"{back} records of a receipt, forgotten before, are in the commitment {leaf[:16]} at entry "
                f"{later.index} of {later.origin}",
            )
        else:
            notes.append(f"{name}: none of its {len(own)} records is one of a receipt that came back.")


def _unanswered(entries: Sequence[Entry], now: int, notes: list[str]) -> Iterator[Finding]:
    reported = {entry.message.opening for entry in entries if isinstance(entry.message, Report)}
    challenged = {e.message.opening: e.message.challenged_at for e in entries if isinstance(e.message, Challenge)}
    waiting = 0
    for entry in entries:
        if not isinstance(entry.message, Opening) or entry.leaf in reported:
            continue
        since = challenged.get(entry.leaf, entry.message.opened_at)
        due = since + entry.message.answer_within
        if now <= due:
            waiting += 1
            continue
        asked = "challenged" if entry.leaf in challenged else "opened and never challenged"
        yield Finding(
            threat="audit-shopping",
            check="monitor",
            message=f"the audit {entry.leaf[:16]} (entry {entry.index} of {entry.origin}), {asked} at "
            f"{format_time(since)}, has no report; its time was over at {format_time(due)}",
        )
    if waiting:
        notes.append(f"{waiting} opened audits have no report yet; their time is not over.")


def _asked_too_much(entries: Sequence[Entry], notes: list[str]) -> Iterator[Finding]:
    """Two challenges of one opened audit draw two samples: more than its plan says. And how much was opened in all."""
    asked: dict[str, list[Entry]] = {}
    for entry in entries:
        if isinstance(entry.message, Challenge):
            asked.setdefault(entry.message.opening, []).append(entry)
    for opening, found in asked.items():
        if len({(one.message.seed, one.message.count, one.message.population) for one in found}) > 1:
            yield Finding(
                threat="curious-auditor",
                check="monitor",
                message=f"the audit {opening[:16]} has {len(found)} challenges that draw different records (entries "
                f"{', '.join(str(one.index) for one in found[:5])} of {found[0].origin}); its plan allows one sample",
            )
    opened = sum(entry.message.opened for entry in entries if isinstance(entry.message, Answer))
    if asked:
        wanted = sum(max(one.message.count for one in found) for found in asked.values())
        notes.append(
            f"{len(asked)} audits asked for {wanted} retained records in all; answers in these logs open {opened}."
        )


def _requests(entries: Sequence[Entry], now: int, notes: list[str]) -> None:
    answered = {leaf for e in entries if isinstance(e.message, Certificate) for leaf in e.message.requests}
    overdue = [
        e.leaf[:16]
        for e in entries
        if isinstance(e.message, Request)
        and e.leaf not in answered
        and e.message.deadline is not None
        and e.message.deadline < now
    ]
    if overdue:
        # No finding: the answer may be in a log that was not given.
        shown = ", ".join(overdue[:5]) + (", ..." if len(overdue) > 5 else "")
        notes.append(f"{len(overdue)} requests are past their deadline without a certificate in these logs: {shown}.")


def watch(
    entries: Sequence[Entry],
    *,
    now: int,
    forgotten: Mapping[bytes, tuple[str, str]],
    slips: Sequence[tuple[str, bytes]] = (),
) -> Watched:
    """Look at what the logs hold.

    Args:
        entries: of one log or of several.
        now: seconds since 1970.
        forgotten: from `forgotten_records`.
        slips: openings of later commitments, by name.

    Raises:
        Error: a slip is malformed, does not verify, or is for a commitment that is not in these logs.
    """
    notes: list[str] = []
    proven = (*_returned(entries, forgotten, slips, notes), *succession.faults(entries, notes))
    proven = (*proven, *_asked_too_much(entries, notes))
    open_ones = tuple(_unanswered(entries, now, notes))
    _requests(entries, now, notes)
    return Watched(findings=proven + open_ones, proven=len(proven), notes=tuple(notes))


__all__ = ["Entry", "Watched", "forgotten_records", "read_entries", "watch"]
