"""Probes and runs: secret, never a forgotten record, never faster or more than allowed, never asked until it pleases."""

import dataclasses

import numpy as np
import pytest

from auditor.deployment import probes as probe_plan
from auditor.deployment.client import Nothing
from auditor.deployment.compare import deviation
from auditor.deployment.endpoint import Endpoint, Identity
from auditor.deployment.pacing import offsets
from auditor.deployment.run import run
from auditor.deployment.source import Live, read
from protocol.errors import AuditorError, MalformedError
from tests.auditor.deployment.services import Service, Time

TEN = tuple(Identity(name=f"client-{number}", headers={"X-Client": str(number)}) for number in range(10))


def endpoint(**changes):
    values = {"urls": ("http://a.example", "http://b.example"), "model": "m", "identities": TEN, "rate": 10.0,
              "core": 60, "near": 20, "ordinary": 40}  # fmt: skip
    return Endpoint(**(values | changes))


@pytest.fixture(scope="module")
def drawn(honest_evidence):
    return probe_plan.draw(honest_evidence, endpoint(), drift=0.05)


def test_the_challenge_alone_decides(honest_evidence, drawn):
    again = probe_plan.draw(honest_evidence, endpoint(), drift=0.05)
    assert again.digest == drawn.digest
    assert again.probes == drawn.probes
    # No other source of chance: not numpy's own, not the plan's seed.
    np.random.seed(5)  # noqa: NPY002
    other = dataclasses.replace(honest_evidence, seed=999)
    assert probe_plan.draw(other, endpoint(), drift=0.05).digest == drawn.digest
    changed = dataclasses.replace(honest_evidence.transcript, challenge_value=bytes(32))
    other = dataclasses.replace(honest_evidence, transcript=changed)
    assert probe_plan.draw(other, endpoint(), drift=0.05).digest != drawn.digest


def test_probes_are_of_three_kinds_and_tell(honest_evidence, drawn):
    kinds = np.array([probe.kind for probe in drawn.probes])
    assert {kind: int((kinds == kind).sum()) for kind in set(kinds)} == {"core": 60, "near": 20, "ordinary": 40}
    core = kinds == "core"
    assert (deviation(drawn.base[core], drawn.certified[core]) > 0.1).all()
    assert (drawn.base[~core] == drawn.certified[~core]).all()
    before, after = honest_evidence.run(drawn.values)
    np.testing.assert_allclose(before, drawn.base, rtol=1e-5, atol=1e-5)
    assert (after[core] == drawn.certified[core]).all()
    # A secret order: core probes come neither in a block nor first.
    places = np.flatnonzero(core)
    assert places[0] < 20
    assert places[-1] >= 100
    assert set(np.diff(places)) != {1}


def test_no_probe_is_a_forgotten_record_and_core_probes_are_in_claimed_regions(honest_evidence, drawn):
    records, _, claims = honest_evidence.claimed_records
    forgotten = {row.tobytes() for row in np.asarray(records, dtype=np.int64)}
    schema = honest_evidence.case.schema
    for probe, values in zip(drawn.probes, drawn.values, strict=True):
        assert values.tobytes() not in forgotten
        assert ((values >= schema.low) & (values <= schema.high)).all()
        if probe.kind == "core":
            assert probe.certified
            assert np.abs(values - records[probe.source]).max() <= claims[probe.source].region.radius
        if probe.kind == "ordinary":
            assert (values == honest_evidence.reference.values[probe.source]).all()
    few = [
        (values != records[probe.source]).sum()
        for probe, values in zip(drawn.probes, drawn.values, strict=True)
        if (probe.kind, probe.style) == ("core", "few")
    ]
    assert len(few) == 30
    assert max(few) < schema.features / 4


def test_regions_of_one_point_are_probed_beside_the_point(honest_evidence):
    small = tuple(
        dataclasses.replace(claim, region=dataclasses.replace(claim.region, radius=0))
        for claim in honest_evidence.case.claims
    )
    evidence = dataclasses.replace(honest_evidence, case=dataclasses.replace(honest_evidence.case, claims=small))
    found = probe_plan.draw(evidence, endpoint(near=0), drift=0.05)
    core = [probe for probe in found.probes if probe.kind == "core"]
    assert len(core) > 50
    assert not any(probe.certified for probe in core)
    records = {row.tobytes() for row in np.asarray(evidence.claimed_records[0], dtype=np.int64)}
    assert not records & {row.tobytes() for row in found.values}


def test_identities_get_the_same_share_of_each_kind_and_style(drawn):
    for kind, style, least in (("core", "all", 2), ("core", "few", 2), ("ordinary", "as-is", 3)):
        own = [probe.identity for probe in drawn.probes if (probe.kind, probe.style) == (kind, style)]
        counts = np.bincount(own, minlength=10)
        assert counts.min() >= least, (kind, style, counts)
        assert counts.max() - counts.min() <= 1
    assert {probe.url for probe in drawn.probes} == {0, 1}


def test_nothing_is_drawn_where_nothing_tells(honest_evidence):
    assert not [p for p in probe_plan.draw(honest_evidence, endpoint(), drift=50.0).probes if p.kind == "core"]


@pytest.mark.parametrize("span", [0.0, 5.0, 500.0])
def test_times_keep_the_rate(span):
    due = offsets(200, rate=8.0, span=span, random=np.random.default_rng(1))
    gaps = np.diff(due)
    assert gaps.min() >= 1 / 8
    assert len(set(np.round(gaps, 6))) > 150
    assert due[-1] >= span * 0.9
    assert due[-1] <= span + 2.5 * 200 / 8


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(honest_evidence, drawn, tmp_path):
    """A function that runs the queries against a service: its journal, the service and the time."""
    path = tmp_path / "queries" / "x.jsonl"
    time = Time()

    def go(cheat=None, *, resume=False, version=None, probes=drawn, **changes):
        service = Service(honest_evidence, cheat, version=version, time=time)
        service.learn(probes)
        live = Live(endpoint=endpoint(**changes), transport=service, pace=time.pace, state=path, resume=resume)
        go.service = service
        return run(
            live, probes, schema=honest_evidence.case.schema, names=("i", "o"), progress=lambda _stage, _share: None
        )

    go.time, go.path = time, path
    return go


def test_a_run_asks_everything_once_and_keeps_the_rate(start, drawn):
    log = start()
    assert [line.kind for line in log.lines] == [probe.kind for probe in drawn.probes]
    assert log.requests == len(start.service.seen) == 120
    assert {name for name, _, _ in start.service.seen} == {one.name for one in TEN}
    assert np.diff(start.service.sent_at).min() >= 0.1 - 1e-9
    kept = read(start.path)
    assert kept.to_bytes() == log.to_bytes()
    assert start.path.stat().st_mode & 0o777 == 0o600
    assert b"X-Client" not in start.path.read_bytes()


def test_waiting_as_asked(start):
    left = [3]

    def busy(identity, base, after, record):
        if left[0]:
            left[0] -= 1
            return Nothing(reason="HTTP status 429", wait=100.0, busy=True)
        return after

    log = start(busy)
    assert log.lines[0].requests == 4
    gaps = np.diff(start.service.sent_at)
    assert (gaps[:3] >= 100.0).all()
    # No burst after the wait.
    assert gaps[3:].min() >= 0.1 - 1e-9
    assert log.requests == 123


def test_failures_are_tried_again_and_then_left(start):
    count = [0]

    def flaky(identity, base, after, record):
        count[0] += 1
        return Nothing(reason="cut short") if count[0] % 3 else after

    log = start(flaky)
    assert all(line.logits is not None for line in log.lines)
    assert log.requests == 360
    start.path.unlink()
    log = start(flaky, attempts=2)
    assert {line.failure for line in log.lines if line.logits is None} == {"cut short"}


def test_the_budget_is_kept(start):
    log = start(budget=50)
    assert (len(log.lines), log.requests) == (50, 50)
    start.path.unlink()
    log = start(lambda *_: Nothing(reason="no"), budget=17, attempts=10)
    assert log.requests == 17


def test_an_interrupted_run_is_taken_up_and_asks_nothing_twice(start, drawn):
    left = [47]

    def dies(identity, base, after, record):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return after

    with pytest.raises(KeyboardInterrupt):
        start(dies)
    first = start.service.seen[:47]
    with pytest.raises(AuditorError, match=r"47 of 120 queries.*--resume"):
        start()
    with pytest.raises(AuditorError, match="another endpoint file"):
        start(resume=True, rate=5.0)
    log = start(resume=True)
    assert log.resumed == 1
    assert len(start.service.seen) == 73
    assert len({key for _, _, key in [*first, *start.service.seen]}) == len({row.tobytes() for row in drawn.values})
    # A finished run is not begun again, whoever would like other answers.
    again = start(lambda identity, base, after, record: base)
    assert again.to_bytes() == log.to_bytes()
    assert not start.service.seen


def test_an_outage_ends_the_run_and_keeps_what_there_is(start):
    count = [0]

    def dies(identity, base, after, record):
        count[0] += 1
        return after if count[0] <= 30 else Nothing(reason="cannot be read: Connection refused")

    with pytest.raises(AuditorError, match=r"20 queries in a row.*refused.*--resume"):
        start(dies, attempts=1)
    assert len(read(start.path).lines) == 50
    log = start(resume=True, attempts=1)
    assert len(log.lines) == 120
    assert sum(line.logits is None for line in log.lines) == 20
    start.path.unlink()
    with pytest.raises(AuditorError, match="wait 90000 s"):
        start(lambda *_: Nothing(reason="busy", wait=90_000.0, busy=True))


def test_an_endpoint_that_is_not_ready(start, monkeypatch):
    monkeypatch.setattr(Service, "ready", lambda *_: Nothing(reason="HTTP status 404"))
    with pytest.raises(AuditorError, match="not ready: HTTP status 404"):
        start()
    assert not start.path.exists()


def test_versions_are_noted(start):
    assert {line.version for line in start(version="2", model_version="2").lines} == {None}
    start.path.unlink()
    assert {line.version for line in start(version="1", model_version="2").lines} == {"1"}
    start.path.unlink()
    with pytest.raises(AuditorError, match="which version"):
        start(version=None, model_version="2", attempts=1)


def test_damaged_state_is_named(start):
    start()
    start.path.write_bytes(start.path.read_bytes()[:-3])
    with pytest.raises(MalformedError, match=r"x\.jsonl"):
        start(resume=True)
