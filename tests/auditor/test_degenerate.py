"""Data that no statistic can be made of: through the audit's own entry points, a clear message or a stated INCONCLUSIVE.

Warnings are errors in these tests: a case that got a number with a warning beside it would fail.
"""

import dataclasses
import json

import numpy as np
import pytest

from auditor import audit, membership_pages
from auditor.attacks.catalogue import ATTACKS, ENTRIES
from auditor.checks import membership
from auditor.pictures import pictures
from auditor.profile import load_profile
from auditor.report import svg_files
from protocol.errors import MalformedError

FEW = ("loss", "lira-offline", "rmia", "gap")


@pytest.fixture(scope="module")
def strict(workshop, honest):
    """The honest bundle's evidence under a profile with few attacks."""
    return attacked(workshop.evidence(honest, profile=load_profile("indistinguishable")), FEW)


def attacked(evidence, names):
    levels = {
        **evidence.profile.levels,
        "membership": {
            **evidence.profile.levels["membership"],
            "attacks": list(names),
            "shadows": 8,
        },
    }
    plan = dataclasses.replace(evidence.transcript.plan, membership=None)
    return dataclasses.replace(
        evidence,
        profile=dataclasses.replace(evidence.profile, levels=levels),
        transcript=dataclasses.replace(evidence.transcript, plan=plan),
    )


def examined(evidence):
    """Verdict, summary and outcome; all that a report shows of it is made, and holds no NaN."""
    outcome = membership.Outcome()
    found = membership.check(evidence, outcome)
    json.dumps(membership_pages.all_figures(outcome), allow_nan=False)
    json.dumps(found.evidence, allow_nan=False)
    membership_pages.tables(outcome)
    return found.verdict, found.summary, outcome


def with_reference(evidence, rows=slice(None), **changes):
    reference = evidence.reference
    values = {"values": reference.values[rows], "labels": reference.labels[rows]} | changes
    return dataclasses.replace(evidence, reference=dataclasses.replace(reference, **values))


def reference_file(workshop, path, **changes):
    with np.load(workshop.root / "data" / "ref.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **(arrays | {name: change(arrays[name]) for name, change in changes.items()}))
    return path


def broken(at, value):
    def change(array):
        array = array.astype(np.float64)
        array.reshape(-1)[at] = value
        return array

    return change


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": broken(5, np.nan)}, "NaN"),
        ({"X": broken(5, np.inf)}, "infinity"),
        ({"X": lambda X: X.reshape(len(X), -1)[:, :30]}, "shape"),
        ({"X": lambda X: X[:100]}, "do not go together"),
        ({"y": lambda y: y + 5}, "not a class"),
        ({"y": lambda y: y.astype(np.float64)}, "do not go together"),
        ({"X": lambda X: X.astype(np.int64) + 1000}, "input box"),
        ({"X": lambda X: X[:0], "y": lambda y: y[:0]}, "do not go together"),
    ],
    ids=["nan", "infinity", "fewer columns", "fewer records", "strange class", "real labels", "outside", "empty"],
)
def test_reference_data_that_cannot_be_used_end_the_audit_with_a_message(workshop, honest, tmp_path, changes, words):
    path = reference_file(workshop, tmp_path / "ref.npz", **changes)
    with pytest.raises(MalformedError) as caught:
        audit.examine(workshop.inputs(honest, reference=path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_single_class(strict):
    labels = np.full_like(strict.reference.labels, 3)
    verdict, summary, outcome = examined(with_reference(strict, labels=labels))
    assert verdict == "INCONCLUSIVE"
    assert "reference records" in summary
    assert outcome.patched.comparisons == ()


def test_ten_reference_records(strict):
    verdict, summary, _ = examined(with_reference(strict, slice(0, 10)))
    assert (verdict, "10 reference records; at least 100 are needed" in summary) == ("INCONCLUSIVE", True), summary


def test_ten_forgotten_records(workshop, strict):
    few = sorted(strict.requested)[:10]
    found = dataclasses.replace(strict)
    vars(found)["requested"] = frozenset(few)
    verdict, summary, outcome = examined(found)
    assert (verdict, "10 forgotten records; at least 20 are needed" in summary) == ("INCONCLUSIVE", True), summary
    assert membership_pages.all_figures(outcome).get("membership", {}) == {}
    assert all(value for value in svg_files_of(found, outcome))


def svg_files_of(evidence, outcome):
    from auditor.view import ReportView

    view = ReportView(
        verdict="INCONCLUSIVE", profile="p", audited_at="2026-01-01T00:00:00Z", names={}, checks=(), required=(),
        pictures=pictures(evidence, outcome), not_claimed=(),
    )  # fmt: skip
    return svg_files(view).values()


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (lambda rows: np.zeros((rows, 10), np.float32), "constant"),
        (lambda rows: np.full((rows, 10), np.nan, np.float32), "not finite numbers"),
        (lambda rows: np.full((rows, 10), np.inf, np.float32), "not finite numbers"),
    ],
    ids=["constant", "nan", "infinite"],
)
def test_outputs_that_say_nothing(strict, logits, words):
    found = attacked(strict, [name for name in ATTACKS if ENTRIES[name].kind in ("outputs", "queries", "retained")])
    vars(found)["run"] = lambda values: (logits(len(values)), logits(len(values)))
    vars(found)["base_model"] = vars(found)["patched_model"] = lambda inputs: logits(len(inputs))
    verdict, summary, outcome = examined(found)
    assert (verdict, words in summary) == ("INCONCLUSIVE", True), summary
    assert set(outcome.patched.unavailable) or outcome.patched.refused
    for one in outcome.patched.comparisons:
        assert np.isfinite(one.difference.value)


def test_duplicates_across_sets_are_left_out_and_counted(strict):
    forgotten, labels = strict.requested_records
    reference = strict.reference
    doubled = with_reference(
        strict,
        values=np.concatenate([reference.values, forgotten[:30].astype(reference.values.dtype)]),
        labels=np.concatenate([reference.labels, labels[:30]]),
    )
    outcome, other = membership.Outcome(), membership.Outcome()
    membership.check(strict, outcome)
    membership.check(doubled, other)
    assert membership_pages.all_figures(other) == membership_pages.all_figures(outcome)
    assert int(other.patched.forget.sum()) == len(forgotten)
    # Nothing but copies of forgotten records: there is no never-seen record at all.
    verdict, summary, _ = examined(with_reference(strict, values=forgotten.astype(np.int32), labels=labels))
    assert verdict == "INCONCLUSIVE"
    assert "reference records" in summary or "No shadow models" in summary


def test_retained_records_that_are_also_reference_records(strict):
    values, labels = strict.retained
    mixed = with_reference(
        strict,
        values=np.concatenate([strict.reference.values, values.astype(np.int32)]),
        labels=np.concatenate([strict.reference.labels, labels]),
    )
    mixed = attacked(mixed, (*FEW, "retained"))
    _, _, outcome = examined(mixed)
    figures = membership_pages.all_figures(outcome)["membership_retained"]
    assert figures  # twenty or more were opened, and none of them stands on both sides
    # A reference record or two may lie in a support; no retained one does.
    assert all(abs(one["before"] - one["after"]) < 0.02 for one in figures.values()), figures
