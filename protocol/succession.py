"""Succession of certificates: which claims of a predecessor its successor carries, which it drops, which it hides.

Proves (`uncarried`, on claims that belong to both certificates' roots): every claim that it returns was made by the
predecessor and is neither kept, at least as strong, nor listed as dropped. Whether the kept claim holds is not asked
here, and whether another certificate stands between the two needs the owner's log. Source: SPEC 11.11.
"""

from collections.abc import Collection, Sequence

from protocol.claims import (
    Argmax,
    Claim,
    ClassRemoval,
    Coverage,
    Linear,
    Logits,
    NoRedirection,
    Property,
    Redirection,
    Region,
)
from protocol.encoding import parse_decimal, parse_float32


def name_of(claim: Claim) -> bytes:
    """What a list of dropped claims calls a claim: its record's commitment, or a class removal's nonce."""
    return claim.nonce if isinstance(claim, ClassRemoval) else claim.record


def _covers(old: Region, new: Region) -> bool:
    return (
        new.norm == old.norm
        and new.radius >= old.radius
        and new.steps >= old.steps
        and parse_decimal(new.radius_data) >= parse_decimal(old.radius_data)
    )


def _implies(old: Property, new: Property, removed: Collection[int]) -> bool:
    if isinstance(old, Logits) and isinstance(new, Logits):
        # What a later request removes, it may lower: that is what its cap is for. Nothing else may differ.
        return len(old.values) == len(new.values) and all(
            now == was or (klass in removed and parse_float32(now) <= parse_float32(was))
            for klass, (was, now) in enumerate(zip(old.values, new.values, strict=True))
        )
    if isinstance(old, Argmax) and isinstance(new, Argmax):
        return old.klass == new.klass and parse_decimal(new.margin) >= parse_decimal(old.margin)
    return isinstance(old, Linear) and old == new


def carries(old: Claim, new: Claim, removed: Collection[int] = ()) -> bool:
    """Whether `new` says at least what `old` says, about the same record or class.

    Items, gates and the number of twins may differ: they say how a claim is kept, not what it promises. A coverage
    claim promises nothing, and carries nothing.

    Args:
        old: the predecessor's claim.
        new: the successor's.
        removed: classes that the successor removes: their logits may fall.
    """
    if isinstance(old, ClassRemoval):
        return (
            isinstance(new, ClassRemoval)
            and new.klass == old.klass
            and parse_decimal(new.margin) >= parse_decimal(old.margin)
        )
    if isinstance(old, Coverage):
        return True
    if isinstance(new, ClassRemoval | Coverage) or new.record != old.record:
        return False
    if isinstance(old, NoRedirection):
        return True
    return (
        isinstance(new, Redirection)
        and new.target == old.target
        and _covers(old.region, new.region)
        and _implies(old.property, new.property, removed)
    )


def uncarried(
    old: Sequence[Claim], new: Sequence[Claim], dropped: Collection[str], *, asked: Collection[int] | None = None
) -> tuple[Claim, ...]:
    """The predecessor's claims that the successor neither carries nor says it drops, in the predecessor's order.

    Args:
        old: the predecessor's claims.
        new: the successor's claims.
        dropped: names (hexadecimal, `name_of`) that the successor lists with a reason.
        asked: classes that the successor's requests ask to remove: a removal that nobody asked for lets no logit fall.
            None where the requests are not at hand.
    """
    removals = [claim for claim in new if isinstance(claim, ClassRemoval)]
    removed = frozenset(claim.klass for claim in removals if asked is None or claim.klass in asked)
    about: dict[bytes, list[Claim]] = {}
    for claim in new:
        if not isinstance(claim, ClassRemoval):
            about.setdefault(claim.record, []).append(claim)
    return tuple(
        claim
        for claim in old
        if not isinstance(claim, Coverage)
        and name_of(claim).hex() not in dropped
        and not any(
            carries(claim, other, removed)
            for other in (removals if isinstance(claim, ClassRemoval) else about.get(claim.record, ()))
        )
    )


def unasked(
    old: Sequence[Claim], dropped: Collection[str], *, classes: Collection[int], records: Collection[bytes] | None
) -> tuple[Claim, ...]:
    """The predecessor's claims that are not dropped and that no request of the successor asks for any more.

    Args:
        old: the predecessor's claims.
        dropped: names (hexadecimal, `name_of`) that the successor lists with a reason.
        classes: whose removal the successor's requests ask for.
        records: that they list; None where not all lists can be read.
    """
    return tuple(
        claim
        for claim in old
        if not isinstance(claim, Coverage)
        and name_of(claim).hex() not in dropped
        and (
            claim.klass not in classes
            if isinstance(claim, ClassRemoval)
            else records is not None and claim.record not in records
        )
    )


def strays(old: Sequence[Claim], dropped: Sequence[str]) -> tuple[str, ...]:
    """Names that a successor lists as dropped although its predecessor made no such claim."""
    known = {name_of(claim).hex() for claim in old if not isinstance(claim, Coverage)}
    return tuple(name for name in dropped if name not in known)


__all__ = ["carries", "name_of", "strays", "unasked", "uncarried"]
