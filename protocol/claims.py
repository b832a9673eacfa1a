"""Claims: one line each of `claims.jsonl`, every one re-checkable on its own.

A claim is a region and an output property. The certificate carries the RFC 6962 root over the
lines, so that a receipt can open its own claims and nobody else's (SPEC 11.5). Reading a line
says what is claimed, never that it holds: that is the auditor's to decide. Source: SPEC 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.encoding import format_float32, parse_decimal, parse_float32
from protocol.errors import EncodingError, Schema, TooLarge
from protocol.log import merkle

MAX_LINE = 256 << 10
"""Bytes of one claim; 10,000 logits fit."""
MAX_CLAIMS = 1_000_000
MAX_FILE = 1 << 30
MAX_ROWS = 1024
"""Inequalities of one linear property; together with MAX_LINE this bounds what proving it may cost."""
GATES = ("sketch", "feature", "linear-region", "always", "none")
Gate = Literal["sketch", "feature", "linear-region", "always", "none"]
Norm = Literal["linf", "hamming"]
Target = Literal["match", "misclassify", "relabel"]
_UNITS: dict[str, str] = {"linf": "step", "hamming": "flip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """All inputs whose grid point is within `radius` of the record's.

    `linf`: every column within `radius` grid steps. `hamming`: at most `radius` of the binary columns and one-hot
    groups differ (a group that differs holds exactly one 1), and every numeric column is within `steps`.
    `radius_data` is the largest real distance per column, in data units, that is surely inside (decimal, rounded
    down), columns that only flip being held.
    """

    norm: Norm
    radius: int
    radius_data: str
    steps: int = 0

    def __post_init__(self) -> None:
        if self.steps and self.norm != "hamming":
            raise Schema("steps beside a radius that is in steps itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argmax:
    """Output `klass` exceeds every other by at least `margin` (decimal, logits)."""

    klass: int
    margin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """The output equals these float32 logits, bit for bit (up to the sign of zero)."""

    values: tuple[str, ...]

    def array(self) -> Float32[np.ndarray, "class"]:
        """The logits."""
        return np.array([np.float32(value) for value in self.values], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Every row's combination of the logits is at least its bound: `P f >= q` in real numbers.

    Args:
        rows: P, float32 texts, one coefficient per class: exact in float64 and in any reader's arithmetic.
        least: q, decimals, one per row.
    """

    rows: tuple[tuple[str, ...], ...]
    least: tuple[str, ...]

    def matrix(self) -> Float64[np.ndarray, "row class"]:
        """P; a float32 number has one value in float64."""
        return np.array([[float(parse_float32(text)) for text in row] for row in self.rows], dtype=np.float64)


Property = Argmax | Logits | Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirection:
    """For all inputs of `region` around the record, the patched model's output has `property`.

    `item` is the item of the patch that is to fire there; None exactly where `gate` is "none": then nothing
    says why the property holds, and a reader has to bound the whole model. `twins` counts the committed records
    that no request of the certificate lists and that equal this one in every value: no function of the input tells
    them apart, so they are redirected with it.
    """

    record: bytes
    item: int | None
    gate: Gate
    region: Region
    property: Property
    target: Target
    twins: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRemoval:
    """For every input: output `klass` is at most the best other output minus `margin`, rounded to float32."""

    klass: int
    margin: str
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRedirection:
    """The record is covered, but nothing about its output is claimed; `reason` says why."""

    record: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Item `item` is there for versions of the record (noise, augmentation), and nothing is certified about it.

    It says why the patch has the item: it fires on the record, and gives the record's own output there (SPEC 11.13).
    """

    record: bytes
    item: int
    gate: Gate


Claim = Redirection | ClassRemoval | NoRedirection | Coverage


def _whole(fields: Fields, name: str) -> int:
    text = fields.text(name, longest=10)
    if not text.isascii() or not text.isdigit() or (text != "0" and text[0] == "0"):
        raise Schema(f"the {name} is not a whole number without leading zeros")
    return int(text)


def _region(fields: Fields) -> Region:
    with fields:
        norm = fields.text("norm", choices=("linf", "hamming"))
        radius = _whole(fields, "radius")
        fields.text("unit", choices=(_UNITS[norm],))
        data = fields.text("radiusData")
        if parse_decimal(data) < 0:
            raise Schema("the radius in data units is negative")
        stated = fields.has("steps")
        steps = _whole(fields, "steps") if stated else 0
        if stated and not steps:
            raise Schema("no steps are spelled by leaving them out")
        return Region(norm=norm, radius=radius, radius_data=data, steps=steps)  # type: ignore[arg-type]


def _texts(values: list[Any], *, longest: int, what: str) -> tuple[str, ...]:
    if len(values) > longest:
        raise TooLarge(f"{len(values)} {what}, at most {longest}")
    if not values:
        raise Schema(f"no {what}")
    for value in values:
        if not isinstance(value, str):
            raise Schema(f"one of the {what} is not a string")
    return tuple(values)


def _linear(fields: Fields) -> Linear:
    least = _texts(fields.array("atLeast", longest=MAX_ROWS), longest=MAX_ROWS, what="bounds")
    for value in least:
        parse_decimal(value)
    rows = []
    for row in fields.array("linear", longest=MAX_ROWS):
        if not isinstance(row, list):
            raise Schema("a row of coefficients is not an array")
        rows.append(_texts(row, longest=10_000, what="coefficients"))
        for value in rows[-1]:
            parse_float32(value)
    if len(rows) != len(least) or any(len(row) != len(rows[0]) for row in rows):
        raise Schema("a linear property needs one bound per row and rows of one length")
    return Linear(rows=tuple(rows), least=least)


def _property(fields: Fields) -> Property:
    with fields:
        if fields.has("linear"):
            return _linear(fields)
        if fields.has("argmax"):
            margin = fields.text("margin")
            if parse_decimal(margin) < 0:
                raise Schema("the margin is negative")
            return Argmax(klass=fields.integer("argmax", high=1 << 20), margin=margin)
        values = fields.array("logits", longest=10_000)
        if not values:
            raise Schema("no logits")
        for value in values:
            if not isinstance(value, str):
                raise Schema("a logit is not a string")
            parse_float32(value)
        return Logits(values=tuple(values))


def parse_claim(line: bytes, *, where: str = "claim") -> Claim:
    """Read one line (without its newline).

    Raises:
        MalformedError: not a claim in its one spelling.
    """
    with Fields(parse_json(line, limit=MAX_LINE, where=where, canonical=True), where=where) as fields:
        kind = fields.text("kind", choices=("redirection", "class-removal", "no-redirection", "coverage"))
        if kind == "class-removal":
            margin = fields.text("margin")
            if parse_decimal(margin) < 0:
                raise Schema("the margin is negative", where=where)
            return ClassRemoval(
                klass=fields.integer("class", high=1 << 20), margin=margin, nonce=bytes.fromhex(fields.hex("nonce"))
            )
        record = bytes.fromhex(fields.hex("record"))
        if kind == "no-redirection":
            return NoRedirection(record=record, reason=fields.text("reason", longest=400))
        if kind == "coverage":
            return Coverage(
                record=record,
                item=fields.integer("item", high=MAX_CLAIMS),
                gate=fields.text("gate", choices=GATES[:-1]),  # type: ignore[arg-type]  # one of GATES
            )
        gate = fields.text("gate", choices=GATES)
        return Redirection(
            record=record,
            item=None if gate == "none" else fields.integer("item", high=MAX_CLAIMS),
            gate=gate,  # type: ignore[arg-type]  # one of GATES
            region=_region(fields.object("region")),
            property=_property(fields.object("property")),
            target=fields.text("target", choices=("match", "misclassify", "relabel")),  # type: ignore[arg-type]
            twins=fields.integer("twins", low=1, high=MAX_CLAIMS) if fields.has("twins") else 0,
        )


def claim_line(claim: Claim) -> bytes:
    """The line of a claim, without its newline.

    Raises:
        EncodingError: over the size that readers accept.
    """
    line = to_bytes(_claim_json(claim))
    if len(line) > MAX_LINE:
        raise EncodingError(f"a claim of {len(line)} bytes, at most {MAX_LINE} are accepted")
    return line


def _claim_json(claim: Claim) -> dict[str, object]:
    if isinstance(claim, ClassRemoval):
        return {"kind": "class-removal", "class": claim.klass, "margin": claim.margin, "nonce": claim.nonce.hex()}
    if isinstance(claim, NoRedirection):
        return {"kind": "no-redirection", "record": claim.record.hex(), "reason": claim.reason}
    if isinstance(claim, Coverage):
        return {"kind": "coverage", "record": claim.record.hex(), "item": claim.item, "gate": claim.gate}
    if (claim.item is None) != (claim.gate == "none"):
        raise EncodingError("a claim names an item exactly if it names a gate")
    region = {
        "norm": claim.region.norm,
        "radius": str(claim.region.radius),
        "unit": _UNITS[claim.region.norm],
        "radiusData": claim.region.radius_data,
    }
    if claim.region.steps:
        region["steps"] = str(claim.region.steps)
    line: dict[str, object] = {
        "kind": "redirection",
        "record": claim.record.hex(),
        **({} if claim.item is None else {"item": claim.item}),
        "gate": claim.gate,
        "region": region,
        "property": _property_json(claim.property),
        "target": claim.target,
    }
    return line | {"twins": claim.twins} if claim.twins else line


def _property_json(held: Property) -> dict[str, object]:
    if isinstance(held, Argmax):
        return {"argmax": held.klass, "margin": held.margin}
    if isinstance(held, Linear):
        return {"linear": [list(row) for row in held.rows], "atLeast": list(held.least)}
    return {"logits": list(held.values)}


def linear_property(rows: Float32[np.ndarray, "row class"], least: Sequence[str]) -> Linear:
    """The property `rows @ f >= least`, the bounds being decimals."""
    return Linear(rows=tuple(tuple(format_float32(value) for value in row) for row in rows), least=tuple(least))


def logits_property(row: Float32[np.ndarray, "class"]) -> Logits:
    """The property that the output equals `row`."""
    return Logits(values=tuple(format_float32(value) for value in row))


def split_lines(data: bytes, *, where: str = "claims.jsonl") -> tuple[bytes, ...]:
    """The lines of a claims file: every line ends in one newline, none is empty.

    Raises:
        MalformedError: otherwise.
    """
    if len(data) > MAX_FILE:
        raise TooLarge(f"{len(data)} bytes, at most {MAX_FILE} are accepted", where=where)
    if data and not data.endswith(b"\n"):
        raise Schema("the last line has no newline", where=where)
    # Counted before the split: a file of newlines would become a list many times its size.
    if (count := data.count(b"\n")) > MAX_CLAIMS:
        raise TooLarge(f"{count} claims, at most {MAX_CLAIMS}", where=where)
    lines = tuple(data.split(b"\n")[:-1])
    if not all(lines):
        raise Schema("an empty line", where=where)
    return lines


def parse_file(data: bytes, *, where: str = "claims.jsonl") -> tuple[Claim, ...]:
    """Read a claims file.

    Raises:
        MalformedError: naming the line.
    """
    return tuple(
        parse_claim(line, where=f"{where}:{number}")
        for number, line in enumerate(split_lines(data, where=where), start=1)
    )


def root(lines: Sequence[bytes]) -> bytes:
    """RFC 6962 root over the lines, in file order."""
    return merkle.root_from_leaves(lines)
