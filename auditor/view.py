"""What a report shows, as plain data: between the checks, which find things out, and the pages that show them.

Holds commitments and outputs, never a record: a report outlives the audit (threat `retentive-auditor`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from protocol.messages.report import VerdictName


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Evidence of one behaviour of the threat model."""

    threat: str
    check: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found.

    Args:
        check: its id (SPEC 13.4).
        verdict: CONSISTENT, REFUTED or INCONCLUSIVE.
        summary: one sentence that says what was found, or what was missing.
        evidence: named numbers, strings and short lists (JSON-friendly) that support it.
        findings: dishonest behaviours that it shows evidence of.
    """

    check: str
    verdict: VerdictName
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """One attack's curve: arrays over thresholds; `low` and `high` bound the true-positive rate (95 %)."""

    name: str
    false_positive: Float[np.ndarray, "threshold"]
    true_positive: Float[np.ndarray, "threshold"]
    low: Float[np.ndarray, "threshold"]
    high: Float[np.ndarray, "threshold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutput:
    """One forgotten record's outputs before and after, by the short form of its commitment."""

    commitment: str
    label: int
    radius: str
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shift:
    """Logit-scaled confidence in each record's own label before and after the patch; finite."""

    forgotten_before: Float[np.ndarray, "item"]
    forgotten_after: Float[np.ndarray, "item"]
    unseen_before: Float[np.ndarray, "record"]
    unseen_after: Float[np.ndarray, "record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistencePoint:
    """Share of probes at `distance` grid steps that are still redirected, with its 95 % interval."""

    distance: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """What one way to redirect a record buys, and what it tells.

    Args:
        name: of the way.
        radius: median radius, in steps or flips.
        noise: share of noisy versions of a record that are still redirected.
        augmented: share of its shifted versions; None where records are no pictures.
        rebuilt: error of rebuilding the record, relative to guessing its class mean; None if not measured.
        identified: share of the records that running it on candidates picks out; None if not measured.
        candidates: how many candidates there were.
        bytes_per_record: size.
    """

    name: str
    radius: float
    noise: float
    augmented: float | None
    rebuilt: float | None
    identified: float | None
    candidates: int
    bytes_per_record: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Data to draw; any part may be empty.

    Args:
        roc: the attacks on the patched model.
        control: the same attacks' null control.
        base: the same attacks on the unpatched base.
        scores: attack name to (forgotten records' scores, never-seen records' scores).
        outputs: some records' logits before and after.
        persistence: redirected share against distance.
        radii: certified radius of each record, in steps.
        frontier: the patch beside what anybody could do instead.
        tables: title to (header, rows) of further tables.
        notes: title to a sentence above that table.
        shift: how outputs moved from base to patched model.
        unit: plural noun for what distances and radii are counted in: grid steps, or flips.
    """

    roc: tuple[RocCurve, ...] = ()
    control: tuple[RocCurve, ...] = ()
    base: tuple[RocCurve, ...] = ()
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    outputs: tuple[RecordOutput, ...] = ()
    persistence: tuple[PersistencePoint, ...] = ()
    radii: tuple[int, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    tables: Mapping[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    shift: Shift | None = None
    unit: str = "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """A whole report as it is shown.

    Args:
        verdict: the report's verdict.
        profile: name of the profile.
        audited_at: RFC 3339 time.
        names: label to value: certificate, commitment, requests, opening, logs and their tree sizes.
        checks: every check, in the order of SPEC 13.4.
        required: ids of the checks that the profile requires.
        pictures: what to draw.
        not_claimed: sentences on what this report does not say.
        figures: summary.json's figures.
    """

    verdict: VerdictName
    profile: str
    audited_at: str
    names: Mapping[str, str]
    checks: tuple[CheckResult, ...]
    required: tuple[str, ...]
    pictures: Pictures
    not_claimed: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the checks' order."""
        return tuple(finding for check in self.checks for finding in check.findings)
