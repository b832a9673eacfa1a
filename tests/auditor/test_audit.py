"""A whole audit: determinism, what decides the verdict, what is written and what is not."""

import dataclasses
import json

import pytest

from auditor import audit, verify
from auditor.profile import CHECKS, parse_profile
from auditor.report.summary import to_summary
from protocol.errors import AuditorError
from protocol.log.store import Log
from protocol.messages.report import CheckLine, combine


def profile(*required, levels=""):
    text = f"version: prune-audit/profile/v1\nname: test\nrequired: [{', '.join(required)}]\n{levels}"
    return parse_profile(text.encode())


def test_same_inputs_same_verdict_and_figures(workshop, honest):
    inputs = workshop.inputs(honest)
    first, second = (to_summary(audit.examine(inputs).view) for _ in range(2))
    assert first == second
    # The seed decides nothing where a challenge does, nor does the time.
    other = to_summary(audit.examine(dataclasses.replace(inputs, seed=99, now=inputs.now + 60)).view)
    assert other["checks"] == first["checks"]
    assert other["figures"] == first["figures"]


def test_every_check_is_shown_in_its_order(workshop, honest):
    view = audit.examine(workshop.inputs(honest)).view
    assert tuple(result.check for result in view.checks) == CHECKS


def test_a_check_that_is_not_required_is_shown_and_does_not_count(workshop, honest):
    inconclusive = {"deployment", "monitor"}
    for required, verdict in (
        (("binding",), "CONSISTENT"), (("binding", "deployment"), "INCONCLUSIVE"), (("monitor",), "INCONCLUSIVE"),
    ):  # fmt: skip
        found, checks, _ = workshop.verdicts(honest, profile=profile(*required))
        assert found == verdict
        assert all(checks[name] == "INCONCLUSIVE" for name in inconclusive)
    level = "levels: {disclosure: {error_at_least: 9}}"
    found, checks, findings = workshop.verdicts(honest, profile=profile("binding", levels=level))
    assert (found, checks["disclosure"], findings) == ("CONSISTENT", "REFUTED", {"patch-as-record"})
    found, _, _ = workshop.verdicts(honest, profile=profile("binding", "disclosure", "monitor", levels=level))
    assert found == "REFUTED"


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ((("CONSISTENT", True),), "CONSISTENT"), ((("INCONCLUSIVE", True), ("CONSISTENT", True)), "INCONCLUSIVE"),
        ((("INCONCLUSIVE", True), ("REFUTED", True)), "REFUTED"), ((("CONSISTENT", True), ("REFUTED", False)), "CONSISTENT"),
        ((("REFUTED", False),), "INCONCLUSIVE"), ((), "INCONCLUSIVE"),
    ],
)  # fmt: skip
def test_combination(lines, verdict):
    assert combine(tuple(CheckLine(check=str(n), verdict=v, required=r) for n, (v, r) in enumerate(lines))) == verdict


def _write(workshop, inputs, out, **more):
    outcome = audit.examine(inputs)
    return audit.write_report(inputs, outcome, out, **({"force": False} | more))


def test_a_report_and_its_receipts(workshop, tmp_path):
    forged = workshop.forge()
    inputs = workshop.inputs(forged)
    size = Log.open(workshop.world.auditor_log).size
    report = _write(workshop, inputs, tmp_path / "report")
    assert Log.open(workshop.world.auditor_log).size == size + 2  # the report, and one receipt
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["verdict"] == report.verdict == "CONSISTENT"
    assert summary["figures"]["reference_records"] == 400
    assert summary["figures"]["reference_records_outside_the_input_box"] == 0
    assert workshop.ledger.revealed(report.opening)
    workshop.world.witness(workshop.world.auditor_log)
    from auditor.files import write_atomic

    assert verify.finish(tmp_path / "report", workshop.ledger, write=write_atomic) == 2
    verified = verify.verify_report(tmp_path / "report", policy=inputs.policy, trust=inputs.trust)
    assert verified.receipts == 1


def test_never_a_record_in_a_report(workshop, honest, tmp_path):
    """Commitments and outputs, never values: a report outlives the audit."""
    inputs = workshop.inputs(honest)
    _write(workshop, inputs, tmp_path / "report")
    case = workshop.case(honest)
    spellings = []
    for opened in case.opened[:5]:
        numbers = [int(value) for value in opened.values]
        spellings += [", ".join(map(str, numbers[20:40])).encode(), ",".join(map(str, numbers[20:40])).encode()]
        spellings += [opened.values.tobytes(), opened.salt.hex().encode(), opened.salt]
    for path in (tmp_path / "report").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(spelling in data for spelling in spellings), path


def test_force_replaces_a_report_as_a_whole(workshop, honest, tmp_path):
    inputs = workshop.inputs(honest)
    outcome = audit.examine(inputs)
    audit.write_report(inputs, outcome, tmp_path / "r", force=False)
    (tmp_path / "r" / "receipts" / "007.receipt").write_bytes(b"left over")
    with pytest.raises(AuditorError, match="--force"):
        audit.write_report(inputs, outcome, tmp_path / "r", force=False)
    audit.write_report(inputs, outcome, tmp_path / "r", force=True)
    assert [path.name for path in (tmp_path / "r" / "receipts").iterdir()] == ["000.receipt"]


def test_progress_goes_from_nothing_to_done(workshop, honest):
    seen = []
    audit.examine(workshop.inputs(honest, progress=lambda stage, share: seen.append((stage, share))))
    assert seen[0] == ("loading", 0.0)
    assert seen[-1] == ("done", 1.0)


def test_without_reference_data(workshop, honest):
    verdict, checks, findings = workshop.verdicts(honest, reference=None)
    assert (verdict, findings) == ("INCONCLUSIVE", set())
    assert checks["membership"] == checks["locality"] == checks["boundedness"] == "INCONCLUSIVE"


def test_the_programs_version_is_in_the_report(monkeypatch):
    assert audit.tool_version().startswith("prune-audit")

    def missing(_):
        raise audit.PackageNotFoundError

    monkeypatch.setattr(audit, "version", missing)
    assert audit.tool_version() == "prune-audit"
