"""What the checks look at: composition, populations, randomness."""

import dataclasses

import numpy as np
import pytest

from auditor.evidence import Evidence, moved
from auditor.memory import bytes_per_record


def test_populations(honest_evidence):
    values, labels, claims = honest_evidence.claimed_records
    assert len(values) == len(labels) == len(claims) == 40
    assert len(honest_evidence.requested_records[0]) == 40
    # The challenge draws from all records, forgotten ones among them; those are not retained.
    opened = honest_evidence.transcript.opened
    forgotten = sum(o.commitment in honest_evidence.requested for o in opened)
    assert forgotten > 0
    assert len(honest_evidence.retained[0]) == len(opened) - forgotten
    assert honest_evidence.retained_gap == ""
    assert set(honest_evidence.others) == {"reference", "retained"}


def test_randomness_comes_from_the_challenge(honest_evidence):
    first = honest_evidence.generator("locality").integers(1 << 62)
    assert first == honest_evidence.generator("locality").integers(1 << 62)
    assert first != honest_evidence.generator("redirection").integers(1 << 62)
    assert first == dataclasses.replace(honest_evidence, seed=77).generator("locality").integers(1 << 62)
    bare = dataclasses.replace(
        honest_evidence, transcript=dataclasses.replace(honest_evidence.transcript, challenge_value=None)
    )
    assert bare.generator("x").integers(1 << 62) != dataclasses.replace(bare, seed=77).generator("x").integers(1 << 62)


def test_without_base_schema_or_patch(honest_evidence):
    for part in ("base", "schema", "patch"):
        evidence = dataclasses.replace(honest_evidence, case=dataclasses.replace(honest_evidence.case, **{part: None}))
        assert not evidence.runnable
        assert evidence.others == {}
        assert evidence.not_numbers == 0
        if part != "patch":
            assert len(evidence.requested_records[0]) == 0
            assert evidence.retained is None
            assert evidence.retained_gap


@pytest.mark.parametrize("lost", ["challenge", "opened"])
def test_retained_gaps(honest_evidence, lost):
    transcript = dataclasses.replace(honest_evidence.transcript, **{lost: None})
    assert "no retained records" in dataclasses.replace(honest_evidence, transcript=transcript).retained_gap


def test_a_large_patch_is_run_on_fewer_records_at_a_time(honest_evidence, monkeypatch):
    assert honest_evidence.batch == 256
    monkeypatch.setattr("auditor.memory.BUDGET", 100_000)
    evidence: Evidence = dataclasses.replace(honest_evidence)
    assert evidence.batch == 100_000 // bytes_per_record(honest_evidence.composed) < 256
    values, _ = honest_evidence.requested_records
    assert np.allclose(evidence.run(values)[0], honest_evidence.run(values)[0], atol=1e-4)


def test_moved_is_about_bits():
    row = np.array([[1.0, np.nan, -0.0]], dtype=np.float32)
    assert not moved(row, row.copy()).any()
    assert moved(row, np.array([[1.0, np.nan, 0.0]], dtype=np.float32)).all()
    assert moved(row, np.array([[np.nextafter(np.float32(1), np.float32(2)), np.nan, -0.0]], np.float32)).all()
