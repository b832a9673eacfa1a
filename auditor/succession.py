"""What the logs say about a certificate's place in its line: what stands before it, what superseded it since.

Proves (`faults`): the owner signed, in its log, a certificate that names the wrong predecessor: of another commitment,
one that is not older, or one that another certificate has superseded already. Logs hold roots, no claims: what was
dropped silently is compared claim by claim in an audit (check binding), where the predecessor is on the table.
Assumes that the logs were verified. Source: SPEC 11.11, 13.4.15.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from auditor.entries import Entry, look
from auditor.ledger import leaf_of
from auditor.view import Finding
from protocol import receipt_file
from protocol.claims import parse_claim
from protocol.encoding import format_time
from protocol.errors import NoQuorum, VerificationError
from protocol.log import source
from protocol.log.policy import Policy
from protocol.messages.certificate import Certificate
from protocol.messages.report import Report
from protocol.succession import name_of
from protocol.trust import Trust


def _certificates(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if isinstance(entry.message, Certificate)]


def passed_over(entries: Sequence[Entry], own: Entry, predecessor: Entry | None) -> tuple[Entry, ...]:
    """Certificates about the same commitment that stand between `own` and the predecessor that it names, in its log."""
    after = predecessor.index if predecessor is not None and predecessor.origin == own.origin else -1
    return tuple(
        entry
        for entry in _certificates(entries)
        if entry.origin == own.origin
        and after < entry.index < own.index
        and entry.message.commitment == own.message.commitment
    )


def fault(entries: Sequence[Entry], own: Entry, predecessor: Any, place: Entry | None) -> tuple[str, str] | None:
    """Threat and message if the predecessor that `own` names is the wrong one; None if nothing shows that.

    Args:
        entries: what the logs hold.
        own: a certificate that names a predecessor.
        predecessor: the message of that name.
        place: where it is logged, as far as known.
    """
    threat = "silent-drop"
    if not isinstance(predecessor, Certificate):
        return threat, "the certificate names as its predecessor what is no certificate"
    if predecessor.commitment != own.message.commitment:
        return threat, "the certificate names a predecessor that is about another commitment"
    between = passed_over(entries, own, place) if place is not None and place.origin == own.origin else ()
    if between:
        message = (
            f"the certificate skips {len(between)} that superseded its predecessor, the latest is "
            f"{between[-1].leaf[:16]}, entry {between[-1].index} of {own.origin}: their claims are neither carried nor "
            "dropped"
        )
        return threat, message
    if place is not None and place.origin == own.origin and place.index >= own.index:
        threat = "backdated-certificate"
        return threat, "the certificate names a predecessor that is younger than itself"
    return None


def faults(entries: Sequence[Entry], notes: list[str]) -> Iterator[Finding]:
    """Findings about certificates that name a wrong predecessor; notes about those that name none beside others."""
    places = {entry.leaf: entry for entry in entries}
    for entry in _certificates(entries):
        named = entry.message.predecessor
        if named is None:
            before = passed_over(entries, entry, None)
            if before:
                notes.append(
                    f"The certificate {entry.leaf[:16]} (entry {entry.index} of {entry.origin}) builds on none of the "
                    f"{len(before)} before it about the same commitment: nothing says that their claims hold in "
                    "its model."
                )
            continue
        place = places.get(named)
        if place is None:
            notes.append(f"The predecessor of {entry.leaf[:16]} is not in these logs.")
            continue
        found = fault(entries, entry, place.message, place)
        if found is not None:
            threat, why = found
            message = f"{entry.leaf[:16]}, entry {entry.index} of {entry.origin}: {why}"
            yield Finding(threat=threat, check="monitor", message=message)


def since(entries: Sequence[Entry], certificate: str, names: Collection[str]) -> tuple[str, ...]:
    """What came after a certificate, in sentences; empty if nothing did.

    Args:
        entries: what the logs hold.
        certificate: its leaf.
        names: the claims that somebody cares for (hexadecimal, `protocol.succession.name_of`).
    """
    found: list[str] = []
    followed, line = {certificate}, [certificate]
    children: dict[str, list[Entry]] = {}
    for entry in _certificates(entries):
        if entry.message.predecessor is not None:
            children.setdefault(entry.message.predecessor, []).append(entry)
    verdicts: Mapping[str, list[str]] = {
        entry.leaf: [
            other.message.verdict
            for other in entries
            if isinstance(other.message, Report) and other.message.certificate == entry.leaf
        ]
        for entry in _certificates(entries)
    }
    left = set(names)
    while line:
        for entry in children.get(line.pop(0), ()):
            if entry.leaf in followed:
                continue
            followed.add(entry.leaf)
            line.append(entry.leaf)
            dropped = [one for one in entry.message.dropped if one.record in left]
            left -= {one.record for one in dropped}
            said = ", ".join(verdicts[entry.leaf]) or "none in these logs"
            found.append(
                f"superseded by the certificate {entry.leaf[:16]} (entry {entry.index} of {entry.origin}): "
                + (
                    "; ".join(f"it drops {one.record[:16]} ({one.reason})" for one in dropped[:5])
                    + (f" and {len(dropped) - 5} more" if len(dropped) > 5 else "")
                    if dropped
                    else "it drops none of these claims by name"
                )
                + f"; reports about it: {said}"
            )
    own = next((entry for entry in _certificates(entries) if entry.leaf == certificate), None)
    if own is not None:
        found += [
            f"a later certificate about the same commitment {entry.leaf[:16]} (entry {entry.index} of {entry.origin}) "
            "does not build on it: nothing says that these claims hold in its model"
            for entry in _certificates(entries)
            if entry.leaf not in followed
            and entry.message.commitment == own.message.commitment
            and entry.origin == own.origin
            and entry.index > own.index
        ]
    return tuple(found)


def of_receipt(entries: Sequence[Entry], receipt: bytes) -> tuple[str, ...]:
    """What came after the certificate that a receipt speaks of, as far as the receipt's own claims are concerned.

    Raises:
        MalformedError: not a receipt.
    """
    file = receipt_file.parse(receipt)
    names = {name_of(parse_claim(opened.line)).hex() for opened in file.claims}
    return since(entries, leaf_of(file.envelopes["certificate"]), names)


def look_at(
    logs: Sequence[str], receipt: bytes, *, policy: Policy, trust: Trust
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read logs and say what superseded a receipt's certificate.

    Returns:
        What came after it; and what was looked at, as of when.

    Raises:
        NoQuorum: a log's checkpoint lacks the quorum's cosignatures.
        VerificationError: none of the logs has the receipt's certificate.
        Error: a log cannot be read.
    """
    entries: list[Entry] = []
    seen = []
    for name in logs:
        looked = look(source.place(name), policy=policy, trust=trust)
        if policy.quorum != "none" and not looked.witnessed:
            raise NoQuorum("the quorum has not cosigned this checkpoint; run the witnesses", where=f"{name}/checkpoint")
        entries += looked.entries
        when = f", as of {format_time(looked.time)}" if looked.time is not None else ""
        seen.append(f"{name}: {looked.size} entries of {looked.origin}{when}")
    leaf = leaf_of(receipt_file.parse(receipt).envelopes["certificate"])
    if leaf not in {entry.leaf for entry in entries}:
        raise VerificationError("the receipt's certificate is not in these logs; give the owner's log", where=logs[0])
    return of_receipt(entries, receipt), tuple(seen)
