"""What to ask an endpoint: probes inside supports, probes just outside, and ordinary records, in one secret order.

Proves: everything drawn follows from the challenge (SPEC 9.6) and nothing else: neither side chose it, the same
challenge draws the same, and nobody who lacks the nonce can draw it. No probe equals a requested record. A probe
inside a support can tell the certified model from the base: their outputs there are far apart. Each kind is spread
evenly over the identities, and over two styles of core probes (all columns moved a little; a few of them).
Assumes: the auditor's composed model. Which candidate can tell is a comparison of floats: on another machine a
candidate on the border may fall out otherwise, and changes that one probe only.
Does not: hide a probe from whoever holds the patch, who can see that an input is inside a support.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from auditor import flips
from auditor.deployment.compare import deviation
from auditor.deployment.endpoint import Endpoint
from auditor.deployment.pacing import offsets
from auditor.evidence import Evidence, Grid, moved
from protocol.digests import sha256_hex
from protocol.messages import challenge as challenge_message
from protocol.model.schema import InputSchema

Kind = Literal["core", "near", "ordinary"]
Style = Literal["all", "few", "as-is"]
_ATTEMPTS = 200
_APART = 2.0
"""How many times the drift limit base and certified output must be apart for a probe to tell: nearer is ambiguous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One query to come.

    Args:
        kind: inside a support, just outside, or an ordinary record.
        style: how it was made from a record; `as-is` for ordinary ones.
        source: place of the claim (core, near) or of the reference record that it was made from.
        certified: whether it lies in the claimed region of its claim.
        identity: place of the identity.
        url: place of the address.
    """

    kind: Kind
    style: Style
    source: int
    certified: bool
    identity: int
    url: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probes:
    """All queries to come, in order.

    Args:
        probes: one each.
        values: their inputs on the grid.
        base: the base's output on them.
        certified: the certified model's.
        due: seconds after the beginning.
        digest: of all of this, under the challenge.
    """

    probes: tuple[Probe, ...]
    values: Int[np.ndarray, "query feature"]
    base: Float32[np.ndarray, "query class"]
    certified: Float32[np.ndarray, "query class"]
    due: Float[np.ndarray, " query"]
    digest: str


@dataclass(slots=True, eq=False)
class _Drawn:
    kind: Kind
    style: list[Style]
    source: list[int]
    certified: list[bool]
    values: list[np.ndarray]
    base: list[np.ndarray]
    after: list[np.ndarray]


class _Maker:
    def __init__(self, evidence: Evidence, value: bytes, apart: float) -> None:
        assert evidence.case.schema is not None
        self.evidence, self.apart = evidence, apart
        self.schema: InputSchema = evidence.case.schema
        self.seed = list(challenge_message.seed(value, "deployment"))
        records = np.ascontiguousarray(evidence.requested_records[0], dtype=np.int64)
        claimed = np.ascontiguousarray(evidence.claimed_records[0], dtype=np.int64)
        self.forgotten = {row.tobytes() for row in (*records, *claimed)}

    def random(self, label: str, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *label.encode(), *numbers])

    def is_forgotten(self, values: Grid) -> Bool[np.ndarray, " query"]:
        rows = np.ascontiguousarray(values, dtype=np.int64)
        return np.array([row.tobytes() in self.forgotten for row in rows], dtype=bool)

    def tells(
        self, base: Float32[np.ndarray, "query class"], after: Float32[np.ndarray, "query class"]
    ) -> Bool[np.ndarray, " query"]:
        numbers = np.isfinite(base).all(axis=1) & np.isfinite(after).all(axis=1)
        found: Bool[np.ndarray, " query"] = (deviation(base, after) > _APART * self.apart) & numbers
        return found

    def reach(self, extra: int) -> tuple[Int[np.ndarray, " claim"], Int[np.ndarray, " claim"]]:
        """Steps and flips that each claim's probe may be away from its record, `extra` beyond the claimed region."""
        claims = self.evidence.claimed_records[2]
        linf = np.array([claim.region.norm == "linf" for claim in claims], dtype=bool)
        radius = np.array([claim.region.radius for claim in claims], dtype=np.int64)
        own = np.array([claim.region.steps for claim in claims], dtype=np.int64)
        widest = int((self.schema.high - self.schema.low).max())
        steps = np.minimum(np.where(linf, radius, own) + extra, widest)
        flipped = np.minimum(np.where(linf, 0, radius + extra), len(flips.units(self.schema)))
        if flips.categorical(self.schema):
            flipped = np.minimum(np.maximum(flipped, np.minimum(steps, 2)), len(flips.units(self.schema)))
        return steps, flipped

    def away(
        self,
        claim: Int[np.ndarray, " query"],
        steps: Int[np.ndarray, " claim"],
        flipped: Int[np.ndarray, " claim"],
        few: Bool[np.ndarray, " query"],
        random: np.random.Generator,
    ) -> Int[np.ndarray, "query feature"]:
        """A point around each claim's record: every numeric column moved a little, or a few of them."""
        centre = np.asarray(self.evidence.claimed_records[0], dtype=np.int64)[claim]
        points = centre.copy()
        numeric = np.flatnonzero([kind == "grid" for kind in self.schema.kind])
        if len(numeric):
            room = steps[claim][:, None]
            noise = random.integers(-room, room + 1, size=(len(claim), len(numeric)))
            chosen = random.random((len(claim), len(numeric))) < 3.0 / len(numeric)
            chosen[np.arange(len(claim)), random.integers(0, len(numeric), size=len(claim))] = True
            points[:, numeric] += np.where(few[:, None] & ~chosen, 0, noise)
            points = np.clip(points, self.schema.low, self.schema.high)
        count = np.where(few, np.minimum(flipped[claim], 1), flipped[claim])
        return flips.flipped(self.schema, points, count, random) if count.any() else points

    def inside(self, claim: int, values: Grid) -> bool:
        """Whether a point lies in the claimed region of a claim."""
        region = self.evidence.claimed_records[2][claim].region
        off = np.abs(np.asarray(values, dtype=np.int64) - self.evidence.claimed_records[0][claim])
        if region.norm == "linf":
            return bool((off <= region.radius).all())
        numeric = np.array([kind == "grid" for kind in self.schema.kind], dtype=bool)
        changed = sum(bool(off[unit].any()) for unit in flips.units(self.schema))
        return bool((off[numeric] <= region.steps).all()) and changed <= region.radius

    def around(self, kind: Kind, count: int) -> _Drawn:
        """Probes in supports (core) or just outside (near), from the claimed records."""
        drawn = _Drawn(kind, [], [], [], [], [], [])
        claims = len(self.evidence.claimed_records[2])
        if not claims or not count:
            return drawn
        own = self._rounds(self.random(f"{kind}-claims"), claims, count)
        few = np.arange(count) % 2 == 1
        found: dict[int, tuple[int, np.ndarray, np.ndarray, np.ndarray]] = {}
        for attempt in range(_ATTEMPTS):
            # Everything is drawn for all probes in each attempt, so that one probe's fate does not change another's.
            if kind == "core":
                # A region of one point has no other one: then next to it, where the gate may act as well.
                steps, flipped = self.reach(0)
                alone = (steps == 0) & (flipped == 0)
                wider = self.reach(1)
                steps, flipped = np.where(alone, wider[0], steps), np.where(alone, wider[1], flipped)
            else:
                steps, flipped = self.reach(1 << attempt % 8)
            # Some records' outputs are too near the base's to tell by: after two attempts another record stands in.
            stand_in = self.random(f"{kind}-stand-in", attempt).integers(0, claims, size=count)
            claim = own if attempt < 2 else stand_in
            points = self.away(claim, steps, flipped, few, self.random(kind, attempt))
            left = np.array([place for place in range(count) if place not in found], dtype=np.int64)
            if not len(left):
                break
            before, after = self.evidence.run(points[left])
            good = self.tells(before, after) if kind == "core" else ~moved(before, after)
            good = np.asarray(good & ~self.is_forgotten(points[left]))
            for place in np.flatnonzero(good).tolist():
                at = int(left[place])
                found[at] = (int(claim[at]), points[at], before[place], after[place])
        for place in sorted(found):
            source, values, before_row, after_row = found[place]
            drawn.style.append("few" if few[place] else "all")
            drawn.source.append(source)
            drawn.certified.append(kind == "core" and self.inside(source, values))
            drawn.values.append(values)
            drawn.base.append(before_row)
            drawn.after.append(after_row)
        return drawn

    @staticmethod
    def _rounds(random: np.random.Generator, choices: int, count: int) -> Int[np.ndarray, " query"]:
        rounds = [random.permutation(choices) for _ in range(-(-count // choices))]
        found: Int[np.ndarray, " query"] = np.concatenate(rounds)[:count]
        return found

    def removed(self, count: int) -> _Drawn:
        """Reference records on which the removal of a class shows."""
        drawn = _Drawn("core", [], [], [], [], [], [])
        if self.evidence.reference is None or not self.evidence.removed_classes:
            return drawn
        values, _, before, after = self.evidence.others["reference"]
        usable = np.flatnonzero(self.tells(before, after) & ~self.is_forgotten(values))
        self._take(drawn, usable, count, values, before, after)
        return drawn

    def ordinary(self, count: int) -> _Drawn:
        """Reference records that no request concerns and on which nothing moved."""
        drawn = _Drawn("ordinary", [], [], [], [], [], [])
        if self.evidence.reference is None:
            return drawn
        values, _, before, after = self.evidence.others["reference"]
        numbers = np.isfinite(before).all(axis=1)
        usable = np.flatnonzero(self.evidence.spared["reference"] & ~moved(before, after) & numbers)
        self._take(drawn, usable, count, values, before, after)
        return drawn

    def _take(
        self,
        drawn: _Drawn,
        usable: Int[np.ndarray, " usable"],
        count: int,
        values: Grid,
        before: Float32[np.ndarray, "record class"],
        after: Float32[np.ndarray, "record class"],
    ) -> None:
        if not len(usable) or not count:
            return
        random = self.random(f"{drawn.kind}-records")
        rounds = [random.permutation(usable) for _ in range(-(-count // len(usable)))]
        for row in np.concatenate(rounds)[:count].tolist():
            drawn.style.append("as-is")
            drawn.source.append(row)
            drawn.certified.append(False)
            drawn.values.append(np.asarray(values[row], dtype=np.int64))
            drawn.base.append(before[row])
            drawn.after.append(after[row])


def draw(evidence: Evidence, endpoint: Endpoint, *, drift: float) -> Probes:
    """Draw the queries of an audit.

    Args:
        evidence: with a challenge, and base and patch that make a model.
        endpoint: how many, from whom, to where, how fast.
        drift: largest deviation that other arithmetic explains.
    """
    value = evidence.transcript.challenge_value
    assert value is not None
    maker = _Maker(evidence, value, drift)
    # Half of the core probes show a class's removal where there are both.
    both = bool(evidence.removed_classes) and len(evidence.claimed_records[2]) > 0
    removed = maker.removed(endpoint.core // 2 if both else endpoint.core)
    core = maker.around("core", endpoint.core - len(removed.style))
    parts = (core, removed, maker.around("near", endpoint.near), maker.ordinary(endpoint.ordinary))
    found: list[tuple[Probe, np.ndarray, np.ndarray, np.ndarray]] = []
    for number, part in enumerate(parts):
        random = maker.random("identities", number)
        count, identities = len(part.style), len(endpoint.identities)
        # Two styles follow each other: whole rounds for each of them, so that no identity gets one style only.
        rounds = [random.permutation(identities) for _ in range(2 * -(-count // (2 * identities)) + 1)]
        whose = np.concatenate(rounds)
        used = {"all": 0, "few": 0, "as-is": 0}
        half = (len(rounds) // 2 + 1) * identities
        for place, style in enumerate(part.style):
            turn = used[style] + (half if style == "few" else 0)
            used[style] += 1
            probe = Probe(
                kind=part.kind,
                style=style,
                source=part.source[place],
                certified=part.certified[place],
                identity=int(whose[turn % len(whose)]),
                url=int(random.integers(len(endpoint.urls))),
            )
            found.append((probe, part.values[place], part.base[place], part.after[place]))
    order = maker.random("order").permutation(len(found)).tolist()
    features = maker.schema.features
    classes = evidence.case.base.classes if evidence.case.base is not None else 0
    values = np.array([found[place][1] for place in order], dtype=np.int64).reshape(len(order), features)
    probes = tuple(found[place][0] for place in order)
    due = offsets(len(order), rate=endpoint.rate, span=endpoint.span, random=maker.random("times"))
    return Probes(
        probes=probes,
        values=values,
        base=np.array([found[place][2] for place in order], dtype=np.float32).reshape(len(order), classes),
        certified=np.array([found[place][3] for place in order], dtype=np.float32).reshape(len(order), classes),
        due=due,
        digest=sha256_hex(bytes(maker.seed) + values.tobytes() + repr(probes).encode() + due.tobytes()),
    )


__all__ = ["Kind", "Probe", "Probes", "Style", "draw"]
