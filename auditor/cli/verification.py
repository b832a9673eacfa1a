"""Receipts and reports, verified offline by whoever holds them."""

import sys
from pathlib import Path

import click

from auditor.cli.program import POLICY, TRUST, fresh, read, read_policy, read_trust
from auditor.view import Finding
from protocol.errors import Error
from protocol.messages.report import EXIT_CODES
from protocol.program import FILE, FOLDER, FORCE, JSON, PATH, done, with_options


@click.command("verify-receipt")
@click.argument("receipt", type=FILE)
@click.option("--slip", type=FILE, help="The subject's slip: then also whose records it is about is checked.")
@click.option(
    "--log", "logs", multiple=True, help="A log (folder or URL) to look at: what superseded the receipt's certificate?"
)
@with_options(POLICY, TRUST, JSON)
def verify_receipt(
    receipt: Path, slip: Path | None, logs: tuple[str, ...], policy: Path, trust: Path, as_json: bool
) -> None:
    """Verify a receipt offline; exits with the verdict that it carries, as of its checkpoints."""
    from auditor import receipts, succession, trusted
    from protocol.receipt_file import MAX_RECEIPT

    trusted_logs, signers = trusted.read(read_policy(policy), read_trust(trust))
    try:
        result = receipts.verify(
            read(receipt, MAX_RECEIPT),
            policy=trusted_logs,
            trust=signers,
            slip=read(slip, 1 << 28) if slip is not None else None,
        )
    except Error as error:
        error.where = f"{receipt}, {error.where}" if error.where else str(receipt)
        raise
    lines = [*result.steps, f"verdict: {result.verdict} under the profile {result.profile}"]
    lines += [f"finding: {finding.threat} ({finding.check})" for finding in result.findings]
    later = None
    if logs:
        later, seen = succession.look_at(logs, read(receipt, MAX_RECEIPT), policy=trusted_logs, trust=signers)
        lines += [*seen, *(f"since then: {sentence}" for sentence in later)]
        if not later:
            lines.append("since then: nothing in these logs supersedes it")
    lines += ["not proven:", *(f"  - {sentence}" for sentence in result.not_proven)]
    done(
        as_json,
        lines,
        verdict=result.verdict,
        profile=result.profile,
        findings=[{"threat": f.threat, "check": f.check} for f in result.findings],
        records=result.records,
        requestedBySubject=result.requested_by_subject,
        **({"since": list(later)} if later is not None else {}),
    )
    sys.exit(EXIT_CODES[result.verdict])


@click.command("receipt-page")
@click.option("--out", default=Path("receipt.html"), show_default=True, type=PATH, help="The page to write.")
@with_options(POLICY, TRUST, FORCE, JSON)
def receipt_page(out: Path, policy: Path, trust: Path, force: bool, as_json: bool) -> None:
    """Write one HTML file with which anybody checks receipts in a browser, offline; trust and policy are baked in."""
    from auditor import page
    from auditor.files import write_atomic

    fresh(out, force)
    policy_bytes, trust_bytes = read_policy(policy), read_trust(trust)
    write_atomic(out, page.build(policy=policy_bytes, trust=trust_bytes))
    fingerprints = page.fingerprints(policy=policy_bytes, trust=trust_bytes)
    lines = [f"{out}: open it in a browser and choose a receipt; it trusts these keys (SHA-256):", *fingerprints]
    lines.append("publish these fingerprints somewhere else too, so that whoever gets the page can compare them")
    done(as_json, lines, page=str(out), fingerprints=fingerprints)


@click.command("verify-report")
@click.argument("report", type=FOLDER)
@click.option("--bundle", type=FOLDER, help="Its BUNDLE: then the report is searched for the opened records.")
@click.option("--openings", type=FOLDER, help="Its OPENINGS: likewise for the challenged ones.")
@with_options(POLICY, TRUST, JSON)
def verify_report(
    report: Path, bundle: Path | None, openings: Path | None, policy: Path, trust: Path, as_json: bool
) -> None:
    """Verify a REPORT folder offline: signature, log, every file, every receipt.

    With --bundle or --openings: that no file of it shows a record that the auditor was shown. A signed report that
    does is REFUTED itself (finding retentive-auditor), whatever its verdict says.
    """
    from auditor.verify import shown_records
    from auditor.verify import verify_report as run

    result = run(report, policy=read_policy(policy), trust=read_trust(trust))
    lines = [
        f"{len(result.files)} files and {result.receipts} receipts are the ones that were signed",
        f"verdict: {result.report.verdict} under the profile {result.report.profile}",
    ]
    found: tuple[Finding, ...] = ()
    if bundle is not None or openings is not None:
        searched, found = shown_records(result, bundle=bundle, openings_folder=openings)
        lines.append(f"searched for {searched} opened records; found {len(found)}")
        lines += [f"finding: {one.threat} ({one.check}): {one.message}" for one in found]
    done(
        as_json,
        lines,
        verdict=result.report.verdict,
        profile=result.report.profile,
        **({"findings": [{"threat": f.threat, "check": f.check} for f in found]} if found else {}),
    )
    if found:
        sys.exit(EXIT_CODES["REFUTED"])
    sys.exit(EXIT_CODES[result.report.verdict])
