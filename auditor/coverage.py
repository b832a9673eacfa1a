"""Items that a certificate accounts for without claiming anything of them: do they do what they are said to be for?

A coverage claim names a record and an item beside the one that the record's certificate is about, so that noisy and
shifted versions of the record are redirected, too. Nothing is proven about versions. What can be looked at is that
the item belongs to the record at all: it fires there and gives the record's own output, so that no output of
somebody's choice hides behind such a claim.

Proves: an item is called a stranger only if it surely does not fire on the opened record, or clearly gives
another output than is claimed. Assumes a patch that composes. Source: SPEC 11.13, 13.4.13.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from auditor import float_gates, rows
from auditor.cores import Cores
from auditor.evidence import Evidence
from auditor.parts_proof import output_numbers
from protocol.claims import Argmax, Coverage, Logits, Redirection
from protocol.model.graph import Graph
from protocol.model.parts import AffineHead, AlwaysGate, FeatureGate, Part, RegionGate, SetHead, SketchGate, gate_kind
from protocol.model.patch import Patch, Place

_LOOKED_AT = 64
"""Claims on items that do not fire in replay whose region is bounded: each is a proof of its own."""
_CLEARLY = 1e-3
"""By how much of the largest logit a sum must miss a property before rounding is ruled out as the reason."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What is wrong (each of it evidence of a hidden payload), and what could not be seen."""

    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


def assess(evidence: Evidence, claims: Sequence[Coverage]) -> Found:
    """Look at every coverage claim.

    Args:
        evidence: with a patch that can be read.
        claims: of its certificate.
    """
    found, patch = Found(), evidence.case.patch
    assert patch is not None
    kept: list[tuple[Coverage, Place]] = []
    seen: set[tuple[bytes, int]] = set()
    for claim in claims:
        name = claim.record.hex()[:16]
        if claim.item >= patch.items:
            found.wrong.append(f"the coverage of record {name} names item {claim.item}, which the patch does not have")
            continue
        place = patch.place(claim.item)
        if claim.gate != gate_kind(patch.parts[place.part].gate):
            found.wrong.append(f"the coverage of record {name} names a gate of another kind than its item's")
        elif (claim.record, place.part) in seen:
            found.wrong.append(f"record {name} is covered by two items of one part")
        else:
            kept.append((claim, place))
        seen.add((claim.record, place.part))
    opened = [(claim, place) for claim, place in kept if claim.record in evidence.opened_by_commitment]
    if len(opened) < len(kept):
        found.open.append(f"{len(kept) - len(opened)} coverage claims are about records that were not opened")
    base, schema = evidence.case.base, evidence.case.schema
    if not opened or base is None or schema is None or not evidence.runnable:
        if opened:
            found.open.append("items that cover records cannot be replayed")
        return found
    listed = [evidence.opened_by_commitment[claim.record].values for claim, _ in opened]
    fitting = [number for number, values in enumerate(listed) if len(values) == schema.features]
    if len(fitting) < len(opened):
        found.open.append(f"{len(opened) - len(fitting)} covered records do not fit the model")
        opened = [opened[number] for number in fitting]
    values = np.array([listed[number] for number in fitting], np.int64).reshape(-1, schema.features)
    cores = Cores(schema=schema, centre=values, steps=np.zeros((len(values), 1), np.int64))
    places = tuple(place for _, place in opened)
    fires = _fires(evidence, patch, cores, places)
    for number in np.flatnonzero(~fires)[:_LOOKED_AT].tolist():
        name = opened[number][0].record.hex()[:16]
        part, item = patch.parts[places[number].part], places[number].item
        if _surely_not(evidence.retrained, part, cores.only(np.array([number])), item):
            found.wrong.append(f"item {opened[number][0].item} surely does not fire on record {name}, which it covers")
        else:
            found.open.append(f"item {opened[number][0].item} does not fire on record {name}, which it covers")
    if (~fires).sum() > _LOOKED_AT:
        found.open.append(f"{int((~fires).sum())} items do not fire on the records that they cover")
    _outputs(evidence, patch, values, opened, found)
    return found


def _fires(evidence: Evidence, patch: Patch, cores: Cores, places: tuple[Place, ...]) -> Bool[np.ndarray, " claim"]:
    """Whether each item fires on its record: sketches in integers, other gates in replay."""
    assert evidence.case.schema is not None
    fires = cores.inside.copy()
    for number, part in enumerate(patch.parts):
        chosen = np.array([n for n, place in enumerate(places) if place.part == number], np.int64)
        if not len(chosen) or isinstance(part.gate, AlwaysGate):
            continue
        items = np.array([places[n].item for n in chosen.tolist()], np.int64)
        if isinstance(part.gate, SketchGate):
            fires[chosen] &= cores.only(chosen).proof(part.gate, items).proven
            continue
        for start in range(0, len(chosen), evidence.batch):
            block = slice(start, start + evidence.batch)
            inputs = evidence.case.schema.dequantise(cores.centre[chosen[block]])
            (hits,) = evidence.replay(inputs, (f"prune/p{number}/hits",))
            fires[chosen[block]] &= hits[np.arange(len(hits)), items[block]] > 0
    return fires


def _surely_not(base: Graph, part: Part, core: Cores, item: int) -> bool:
    if not core.inside.all() or isinstance(part.gate, SketchGate):
        return True  # decided in integers
    gate = part.gate
    if isinstance(gate, FeatureGate):
        gate = replace(gate, low=gate.low[[item]], high=gate.high[[item]])
    elif isinstance(gate, RegionGate):
        gate = replace(gate, weights=gate.weights[[item]], bounds=gate.bounds[[item]])
    else:
        return False
    one = np.ones(1, np.int64)
    return bool(float_gates.first_possible(base, gate, core, 0 * one, own=-one, before=one)[0] < 0)


def _value(
    part: Part, item: int, logits: Float32[np.ndarray, " class"], x: Float32[np.ndarray, " feature"]
) -> Float32[np.ndarray, " class"]:
    head = part.head
    row = head.rows[head.index[item]]
    if isinstance(head, SetHead):
        return np.asarray(row)
    if isinstance(head, AffineHead):
        row = (head.weights[head.index[item]] * x).sum(axis=1, dtype=np.float32) + row
    total: Float32[np.ndarray, " class"] = logits + row
    return total


def _outputs(
    evidence: Evidence,
    patch: Patch,
    values: Int64[np.ndarray, "claim feature"],
    claims: Sequence[tuple[Coverage, Place]],
    found: Found,
) -> None:
    """Whether each item gives what is claimed of its record."""
    assert evidence.case.schema is not None
    own: dict[bytes, list[Redirection]] = {}
    for one in evidence.redirections:
        own.setdefault(one.record, []).append(one)
    numbers = output_numbers(patch)
    inputs = evidence.case.schema.dequantise(values)
    (base,) = evidence.replay(inputs, (evidence.retrained.output,))
    flat = inputs.reshape(len(values), -1)
    for number, (claim, place) in enumerate(claims):
        part, mine = patch.parts[place.part], numbers[place.part][place.item]
        with np.errstate(over="ignore", invalid="ignore"):
            output = rows.cap_rows(_value(part, place.item, base[number], flat[number])[None], patch.caps)[0]
        for wanted in own.get(claim.record, []):
            if wanted.item is not None and wanted.item < patch.items:
                other = patch.place(wanted.item)
                if numbers[other.part][other.item] == mine:
                    continue
            short = _short(wanted, output)
            message = f"item {claim.item} covers record {claim.record.hex()[:16]} with another output than is claimed"
            if short > (0.0 if isinstance(part.head, SetHead) else _CLEARLY):
                found.wrong.append(message)
            elif short > 0:
                found.open.append(message)


def _short(claim: Redirection, output: Float32[np.ndarray, " class"]) -> float:
    """By how much an output misses a property, relative to its largest logit; 0 where it has it."""
    wanted = claim.property
    scale = float(np.abs(output).max())
    if not np.isfinite(scale):
        return float("inf")
    if isinstance(wanted, Argmax):
        if wanted.klass >= len(output):
            return float("inf")
        if rows.leads(output[None], np.array([wanted.klass]), wanted.margin)[0]:
            return 0.0
        rest = float(np.delete(output, wanted.klass).max(initial=-np.inf))
        return max((rest + float(wanted.margin) - float(output[wanted.klass])) / max(scale, 1e-30), 1e-30)
    if isinstance(wanted, Logits):
        known = wanted.array()
        if known.shape != output.shape:
            return float("inf")
        away = float(np.abs(known.astype(np.float64) - output).max())
        return away / max(scale, 1e-30)
    missing = len(wanted.rows[0]) != len(output)
    return float("inf") if missing or not rows.satisfies(output, wanted.rows, wanted.least) else 0.0
