"""A step of the level is a step of the data: a grid that is finer than the data brings no distance nearer."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from auditor.checks import persistence, redirection
from owner.gates import sketch
from protocol.claims import Redirection, Region, logits_property
from protocol.model.schema import InputSchema

FINER = 1000


def grid(columns, *, kind="grid", high=255):
    return InputSchema.uniform(
        (columns,), kind=kind, scale=1.0, offset=0.0, low=0, high=1 if kind == "binary" else high
    )


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        (np.random.default_rng(0).integers(0, 256, (200, 30)), 1),
        (np.random.default_rng(0).integers(0, 17, (200, 30)) * 15, 15),
        (np.random.default_rng(0).integers(0, 17, (200, 30)) * 1000, 1000),
        (np.random.default_rng(0).normal(2e6, 3e5, (200, 30)).astype(np.int64), 4000),  # no grid of its own
        (np.random.default_rng(0).integers(0, 2, (200, 30)) * 255, 1),  # black and white on a grey scale
        (np.random.default_rng(0).integers(0, 17, (9, 30)) * 15, 1),  # too few to tell
        (np.zeros((200, 30), np.int64), 1),
    ],
)
def test_steps_of_the_data(values, steps):
    found = persistence.stride(grid(30, high=1 << 22), values)
    assert found == steps if steps != 4000 else 1000 < found < 4000


def test_a_few_coarse_columns_and_none_at_all():
    values = np.random.default_rng(0).integers(0, 100, (200, 30))
    values[:, :10] *= 50
    assert persistence.stride(grid(30, high=10_000), values) == 1
    # Mixed tables: most columns have many more values than anybody tells apart, a quarter of them has not.
    wide = np.random.default_rng(0).integers(0, 3_000_000, (200, 8))
    assert persistence.stride(grid(8, high=1 << 22), wide) > 2000
    assert persistence.stride(grid(8, high=1 << 22), wide // np.array([1, 1, 1, 1, 1, 30000, 30000, 30000])) == 1
    assert persistence.stride(grid(30), None) == 1
    assert persistence.stride(grid(30, kind="binary"), values % 2) == 1


def _table(reach, *, values, kinds):
    """Evidence of a patch that redirects what differs from its record in `reach` binary columns at most."""
    columns = len(kinds)
    schema = InputSchema.from_columns(
        (columns,), scale=np.ones(columns), offset=np.zeros(columns), low=np.zeros(columns, np.int64),
        high=np.ones(columns, np.int64), kind=kinds,
    )  # fmt: skip
    records, binary = values[:5], np.array([kind == "binary" for kind in kinds])

    def run(points):
        flips = (points[:, None, binary] != records[None, :, binary]).sum(axis=2).min(axis=1)
        base = np.zeros((len(points), 2), np.float32)
        return base, np.where((flips <= reach)[:, None], np.float32(1), base)

    claim = Redirection(
        record=bytes(32), item=0, gate="sketch", region=Region(norm="hamming", radius=0, radius_data="0"),
        property=logits_property(np.ones(2, np.float32)), target="misclassify",
    )  # fmt: skip
    return SimpleNamespace(
        profile=SimpleNamespace(levels={"persistence": {"distance": 1, "share_at_least": 0.9}}), runnable=True,
        case=SimpleNamespace(schema=schema, patch=object()), claimed_records=(records, None, (claim,) * 5), run=run,
        generator=lambda name: np.random.default_rng([*name.encode()]), removed_classes=(), redirections=(None,),
        reference=SimpleNamespace(values=values), spared={"reference": np.ones(len(values), bool)},
    )  # fmt: skip


def test_one_column_that_is_called_a_number():
    """An exact-match list of binary records, with one binary column declared numeric: noise there moves nothing."""
    values = np.random.default_rng(0).integers(0, 2, (60, 12))
    kinds = ("grid", *["binary"] * 11)
    found = persistence.check(_table(0, values=values, kinds=kinds))
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())
    assert "flips of the others" in found.summary
    assert persistence.check(_table(1, values=values, kinds=kinds)).verdict == "CONSISTENT"
    assert persistence.check(_table(0, values=values, kinds=("binary",) * 12)).verdict == "REFUTED"
    numbers = values.copy()
    numbers[:, 0] = np.arange(60)
    assert not persistence.held(_table(0, values=values, kinds=kinds).case.schema, numbers)
    assert not persistence.held(_table(0, values=values, kinds=kinds).case.schema, None)


def _finer(evidence, radius):
    """The honest evidence as if the owner had committed to a finer grid, with boxes of `radius` of its steps."""
    case, reference, transcript = evidence.case, evidence.reference, evidence.transcript
    schema = dataclasses.replace(
        case.schema, scale=case.schema.scale * np.float32(FINER), offset=case.schema.offset * np.float32(FINER),
        low=case.schema.low * FINER, high=case.schema.high * FINER,
    )  # fmt: skip
    opened = tuple(dataclasses.replace(one, values=one.values * FINER) for one in case.opened)
    retained = tuple(dataclasses.replace(one, values=one.values * FINER) for one in transcript.opened)
    known = {one.commitment: new for one, new in zip(case.opened, opened, strict=True)}
    claims, parts = list(case.claims), []
    for start, part in zip(case.patch.starts, case.patch.parts, strict=True):
        items = [next(n for n, c in enumerate(claims) if c.item == start + item) for item in range(part.gate.items)]
        values = np.array([known[claims[n].record].values for n in items], dtype=np.int64)
        low, high = sketch.boxes(part.gate.matrix, schema, values, np.full(len(items), radius))
        gate = dataclasses.replace(part.gate, low=low.astype(np.int32), high=high.astype(np.int32), screen=None)
        parts.append(dataclasses.replace(part, gate=gate))
        for n in items:
            assert isinstance(claims[n], Redirection)
            claims[n] = dataclasses.replace(claims[n], region=Region(norm="linf", radius=radius, radius_data="0"))
    patch = dataclasses.replace(case.patch, parts=tuple(parts))
    made = dataclasses.replace(
        evidence,
        case=dataclasses.replace(case, schema=schema, patch=patch, claims=tuple(claims), opened=opened, hints=None),
        transcript=dataclasses.replace(transcript, opened=retained),
        reference=dataclasses.replace(reference, values=reference.values * FINER),
    )  # fmt: skip
    # The records' hashes are of the coarser grid's values; what is looked at here comes after them.
    made.__dict__["opened_by_commitment"] = known
    return made


def test_an_exact_match_list_on_a_finer_grid(honest_evidence, monkeypatch):
    """Regions of one step of a grid a thousand times finer: sound, and no copy with one grey level changed is met."""
    cheat = _finer(honest_evidence, 1)
    found = persistence.check(cheat)
    assert (found.verdict, [f.threat for f in found.findings]) == ("REFUTED", ["point-lookup"])
    assert found.evidence["grid_steps_to_a_step_of_the_data"] == FINER
    assert "1000 grid steps away" in found.summary
    # Without a look at the data it would pass: the region is what is claimed, and a step away is inside of it.
    monkeypatch.setattr(persistence, "stride", lambda *_: 1)
    assert persistence.check(_finer(honest_evidence, 1)).verdict == "CONSISTENT"
    assert redirection.check(_finer(honest_evidence, 1)).evidence["counterexamples"] == 0


def test_an_honest_owner_with_a_finer_grid(honest_evidence):
    found = persistence.check(_finer(honest_evidence, 2 * FINER))
    assert found.verdict == "CONSISTENT", found.summary
