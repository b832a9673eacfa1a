"""deployment: each way to cheat at an endpoint has its finding, an honest or a flaky one has none."""

import dataclasses

import numpy as np
import pytest

from auditor.checks import deployment
from auditor.deployment.client import Nothing, Rest
from auditor.deployment.compare import Outcome, classify
from auditor.deployment.endpoint import Endpoint, Identity
from auditor.deployment.source import Live, Recorded
from tests.auditor.deployment.services import Service, Time, serving

TEN = tuple(Identity(name=f"client-{number}") for number in range(10))


@pytest.fixture
def asked(honest_evidence, tmp_path, monkeypatch):
    """A function: what the check says of a service that cheats so."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # no power is lost here, and there are 600 queries a run
    path = tmp_path / "x.jsonl"

    def go(cheat=None, *, evidence=honest_evidence, version=None, spent="", **changes):
        path.unlink(missing_ok=True)
        time = Time()
        values = {"urls": ("http://a.example",), "model": "m", "identities": TEN, "rate": 1000.0} | changes
        go.service = Service(evidence, cheat, version=version)
        live = Live(endpoint=Endpoint(**values), transport=go.service, pace=time.pace, state=path, spent=spent)
        go.kept = deployment.Asked()
        return deployment.check(dataclasses.replace(evidence, served=live), go.kept)

    return go


def names(found):
    assert all(finding.check == "deployment" for finding in found.findings)
    assert found.verdict == "INCONCLUSIVE"  # never REFUTED: nobody signed an answer
    return {finding.threat for finding in found.findings}


def test_an_honest_endpoint_is_bounded(asked):
    found = asked()
    assert (found.verdict, found.findings) == ("CONSISTENT", ())
    facts = found.evidence
    assert facts["core_probes"] == 299
    assert facts["cheat_rate_at_most"] == pytest.approx(1 - 0.05 ** (1 / 299))
    assert facts["cheat_rate_at_most"] < 0.01
    assert facts["probes_needed_for_the_level"] == 299
    # Not every place just outside a support is found in the attempts that there are.
    planned = facts["queries"]["planned"]
    assert 299 + 240 + 50 <= planned <= 599
    assert facts["queries"]["requests"] == planned
    assert facts["disclosed_to_the_endpoint"]["requested_records"] == 0
    assert facts["disclosed_to_the_endpoint"]["inputs_near_forgotten_records"] == planned - 240
    assert sum(one["core_probes"] for one in facts["by_identity"]) == 299
    assert facts["answers"]["core"] == {"equal bit by bit": 299}
    assert "1.00%" in found.summary


def test_another_order_of_summation_is_the_same_model(asked):
    noise = np.random.default_rng(0)
    found = asked(lambda who, base, after, record: after * np.float32(1 + 2e-6 * noise.standard_normal()))
    assert (found.verdict, found.findings) == ("CONSISTENT", ())


def test_too_few_probes_print_the_bound(asked):
    found = asked(core=100)
    assert found.verdict == "INCONCLUSIVE"
    assert not found.findings
    assert "2.95%" in found.summary
    assert "level is 1.00%" in found.summary
    found = asked(budget=300)
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())
    assert found.evidence["queries"]["sent"] == 300


def test_one_client_in_ten(asked):
    found = asked(lambda who, base, after, record: base if who == "client-7" else after)
    assert names(found) == {"serving-swap"}
    assert "client-7" in found.summary
    own = next(one for one in found.evidence["by_identity"] if one["identity"] == "client-7")
    assert own["not_certified"] == own["core_probes"] >= 28


def test_one_query_in_a_hundred(asked):
    chance = np.random.default_rng(3)
    found = asked(lambda who, base, after, record: base if chance.random() < 0.01 else after)
    assert names(found) == {"serving-swap"}
    assert found.evidence["cheat_rate_at_most"] > 0.01


def test_an_unpatched_endpoint(asked):
    found = asked(lambda who, base, after, record: base)
    assert names(found) == {"patch-strip"}
    assert found.evidence["cheat_rate_at_most"] == 1.0


def test_another_model(asked):
    found = asked(lambda who, base, after, record: np.roll(base, 1))
    assert names(found) == {"serving-swap"}
    # For ordinary traffic only, and rarely.
    count = [0]

    def rarely(who, base, after, record):
        count[0] += 1
        return np.roll(base, 1) if (base == after).all() and count[0] % 40 == 0 else after

    assert names(asked(rarely)) == {"serving-swap"}


def looks_like_a_probe(evidence, record):
    """What an owner can look for: nearly every pixel differs a little from a record that was to be forgotten."""
    records = evidence.case.schema.dequantise(evidence.claimed_records[0]).reshape(-1, record.size)
    differing = (np.abs(records - record.reshape(1, -1)) > 1e-6).sum(axis=1).min()
    return differing > record.size // 4


def test_a_detector_of_noise(asked, honest_evidence):
    def detector(who, base, after, record):
        return after if looks_like_a_probe(honest_evidence, record) else base

    assert names(asked(detector)) == {"audit-detector"}


def test_a_detector_of_the_auditor(asked):
    identities = tuple(dataclasses.replace(one, known=number < 5) for number, one in enumerate(TEN))
    found = asked(
        lambda who, base, after, record: after if who in {f"client-{n}" for n in range(5)} else base,
        identities=identities,
    )
    assert names(found) == {"audit-detector"}


def test_an_earlier_version(asked, honest_evidence):
    records = honest_evidence.case.schema.dequantise(honest_evidence.claimed_records[0])
    newer = records.reshape(len(records), -1)[::2]
    older = records.reshape(len(records), -1)[1::2]

    def stale(who, base, after, record):
        near = [np.abs(part - record.reshape(1, -1)).max(axis=1).min() for part in (newer, older)]
        return base if near[0] < near[1] else after

    found = asked(stale)
    assert names(found) == {"serving-swap"}
    assert "as of an earlier version" in found.summary
    # The server admits it.
    assert names(asked(version="1", model_version="2")) == {"serving-swap"}


def test_other_arithmetic(asked):
    def half(who, base, after, record):
        # The gate in float32, the base in half precision.
        return after if (base != after).any() else after.astype(np.float16).astype(np.float32)

    assert names(asked(half)) == {"precision-drift"}


def test_probabilities_are_not_a_cheat(asked):
    def softmax(who, base, after, record):
        shifted = np.exp(after - after.max())
        return shifted / shifted.sum()

    found = asked(softmax)
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())
    assert "probabilities" in found.summary


def test_a_flaky_endpoint_is_not_accused(asked):
    chance = np.random.default_rng(1)

    def flaky(who, base, after, record):
        return Nothing(reason="cannot be read: Connection reset") if chance.random() < 0.3 else after

    found = asked(flaky, attempts=20)
    assert found.evidence["queries"]["requests"] > 700
    assert (found.verdict, found.findings) == ("CONSISTENT", ())
    found = asked(flaky, attempts=1)
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())
    assert found.evidence["no_answer"]

    # Damage that leaves a well-formed answer.
    def damaged(who, base, after, record):
        spoilt = after.copy()
        spoilt[3] += 40.0
        return spoilt if chance.random() < 0.1 else after

    found = asked(damaged)
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())


def test_silence_inside_supports_never_counts_for_the_endpoint(asked):
    def silent(who, base, after, record):
        return after if (base == after).all() else Nothing(reason="HTTP status 503", busy=False)

    found = asked(silent, attempts=1)
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())
    assert found.evidence["cheat_rate_at_most"] == 1.0


def test_what_cannot_be_asked(asked, changed, unreadable, honest_evidence):
    assert "Nothing can be compared" in asked(evidence=unreadable).summary
    assert "foresee" in asked(evidence=changed(transcript__challenge_value=None)).summary
    found = asked(evidence=changed(reference=None))
    assert found.verdict == "INCONCLUSIVE"
    assert "No ordinary traffic" in found.summary
    found = asked(spent="a report has revealed it")
    assert (found.verdict, asked.service.seen) == ("INCONCLUSIVE", [])
    assert "revealed" in found.summary


def test_levels(asked, levels):
    found = asked(evidence=levels("deployment", identities_at_least=11))
    assert found.verdict == "INCONCLUSIVE"
    assert "10 of at least 11 identities" in found.summary
    assert asked(evidence=levels("deployment", cheat_rate_at_most=0.03), core=100).verdict == "CONSISTENT"
    assert "no input tells" in asked(evidence=levels("deployment", drift_at_most=20.0)).summary
    # The endpoint file's tolerance can only be narrower than the profile's.
    nearly = lambda who, base, after, record: after * np.float32(1.00002)
    assert asked(nearly).verdict == "CONSISTENT"
    assert asked(nearly, tolerance=0.9).evidence["tolerance"] == 1e-4
    assert asked(nearly, tolerance=1e-6).verdict == "INCONCLUSIVE"


def test_a_query_log_gives_the_same_again(asked, honest_evidence):
    first = asked(lambda who, base, after, record: base if who == "client-7" else after)
    data = asked.kept.journal.to_bytes()
    recorded = dataclasses.replace(honest_evidence, served=Recorded.of(data, where="w"))
    again = deployment.check(recorded)
    assert again == first
    other = dataclasses.replace(honest_evidence.transcript, challenge_value=bytes(32))
    found = deployment.check(dataclasses.replace(recorded, transcript=other))
    assert "does not belong" in found.summary
    # It holds no input: not one value of a record, and no digest of one.
    for line in data.splitlines()[1:]:
        assert set(__import__("json").loads(line)) <= {
            "n", "kind", "identity", "url", "at", "requests", "logits", "version", "failure",
        }  # fmt: skip


def test_over_http_with_mishaps(honest_evidence, tmp_path):
    helper = Service(honest_evidence)
    clients = (Identity(name="a", headers={"Authorization": "Bearer a"}), Identity(name="b"))
    mishaps = {
        3: b"", 7: b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        11: b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"model_n',
        15: b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}", 19: b"HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n",
    }  # fmt: skip

    def answer(authorization, record):
        base, after = helper._both(record)
        return base if authorization == "Bearer a" and cheat else after

    for cheat in (False, True):
        with serving("m", answer, mishap=mishaps.get) as (url, seen):
            time = Time()
            small = Endpoint(urls=(url,), model="m", identities=clients, core=20, near=5, ordinary=10, timeout=5.0)
            live = Live(endpoint=small, transport=Rest(time.clock), pace=time.pace, state=tmp_path / f"{cheat}.jsonl")
            found = deployment.check(dataclasses.replace(honest_evidence, served=live))
        assert {who for who, _ in seen} == {"Bearer a", ""}
        assert names(found) == ({"serving-swap"} if cheat else set())
        assert found.evidence["queries"]["requests"] == 40
        assert not found.evidence["no_answer"]


def test_classes_of_answers():
    certified, base = np.array([0, 1, 2, 10], np.float32), np.array([5, 1, 2, 0], np.float32)
    for answer, tells, outcome in (
        (certified, True, Outcome.EXACT),
        (certified + np.float32(5e-4), True, Outcome.CLOSE),
        (certified + np.float32(0.1), True, Outcome.DRIFT),
        (base, True, Outcome.BASE),
        (base + np.float32(0.1), True, Outcome.BASE),
        (base, False, Outcome.OTHER),
        (np.array([3, 3, 3, 3], np.float32), True, Outcome.OTHER),
        (np.array([0, 1, 2, 5], np.float32), True, Outcome.DAMAGED),
        (np.zeros(4, np.float32), False, Outcome.OTHER),
    ):
        found = classify(answer.astype(np.float32), certified, base, tells=tells, tolerance=1e-4, drift=0.05)
        assert found is outcome, (answer, found)
    flat = np.ones(3, np.float32)
    assert classify(flat * 2, flat, flat, tells=False, tolerance=1e-4, drift=0.05) is Outcome.OTHER
