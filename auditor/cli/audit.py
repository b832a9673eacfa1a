"""The audit itself, its replay, and receipts that wait for cosignatures."""

import sys
from pathlib import Path

import click

from auditor.cli.program import (
    BACKEND,
    DEVICE,
    KEY,
    LOG,
    OPENINGS,
    OWNER_LOG,
    POLICY,
    REFERENCE,
    SCHEDULER,
    SEED,
    SHADOWS,
    TRUST,
    WORKERS,
    engine_of,
    progress_bar,
    read_policy,
    read_trust,
)
from protocol import keys
from protocol.device import Device
from protocol.errors import AuditorError, VerificationError
from protocol.messages.report import EXIT_CODES
from protocol.program import FOLDER, FORCE, JSON, NOW, OUT, PATH, clock, done, with_options


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--profile", required=True, help="A profile file, or redirection, indistinguishable or gdpr-erasure.")
@click.option("--endpoint", help="A live endpoint to query: https://host/v2/models/NAME, or an endpoint file.")
@click.option("--resume", is_flag=True, help="Go on with queries of the endpoint that were interrupted.")
@click.option("--state", type=PATH, help="Remember logs' checkpoints here.")
@with_options(POLICY, TRUST, OPENINGS, REFERENCE, OWNER_LOG, SHADOWS, BACKEND, WORKERS, SCHEDULER, DEVICE)
@with_options(SEED, KEY, LOG, OUT, NOW, FORCE, JSON)
def audit(
    bundle: Path,
    profile: str,
    endpoint: str | None,
    resume: bool,
    state: Path | None,
    policy: Path,
    trust: Path,
    openings: Path | None,
    reference: Path | None,
    owner_log: Path | str | None,
    shadow_cache: Path | None,
    backend: str | None,
    workers: int,
    scheduler: str | None,
    device: Device,
    seed: int,
    key: Path,
    log: Path,
    out: Path,
    now: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Audit a bundle: re-check every claim, attack the result, sign a report and one receipt per request."""
    from auditor import audit as command
    from auditor import trusted
    from auditor.deployment import endpoint as endpoint_file
    from auditor.ledger import Ledger
    from auditor.profile import load_profile
    from protocol.log.store import Log

    whom = endpoint_file.load(endpoint) if endpoint is not None else None
    ledger = Ledger(log=log)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise AuditorError("exists and is not empty; give --force to overwrite, or another --out", where=str(out))
    policy_bytes, trust_bytes, signing = read_policy(policy), read_trust(trust), keys.load_signing_key(key)
    trusted.check_own(signing, Log.open(log).origin, trusted.read(policy_bytes, trust_bytes)[1])
    inputs = command.Inputs(
        bundle=bundle,
        policy=policy_bytes,
        trust=trust_bytes,
        profile=load_profile(profile),
        openings=openings,
        reference=reference,
        state=state,
        owner_log=owner_log,
        key=signing,
        ledger=ledger,
        shadow_cache=shadow_cache if shadow_cache is not None else ledger.private / "shadows",
        now=clock(now),
        seed=seed,
        engine=engine_of(backend, workers, scheduler, device),
        device=device,
        endpoint=whom,
        resume=resume,
        progress=progress_bar(),
    )
    outcome = command.examine(inputs)
    report = command.write_report(inputs, outcome, out, force=force)
    lines = [f"{result.check:13} {result.verdict:13} {result.summary}" for result in outcome.view.checks]
    lines += [f"finding: {f.threat} ({f.check}): {f.message}" for f in outcome.view.findings]
    shown = outcome.view.figures["shown_to_the_auditor"]
    left = shown["challenged_records"] - shown["retained_records"]
    lines.append(
        f"shown to this auditor: {shown['requested_records']} requested and {shown['retained_records']} retained "
        f"records of {shown['of_committed']} that were committed"
        + (f" ({left} more were challenged)" if left else "")
        + "; none of them is in the report"
    )
    if shown["requests_to_the_endpoint"]:
        lines.append(
            f"asked of the endpoint: {shown['requests_to_the_endpoint']} requests, "
            f"{shown['answers_of_the_endpoint']} answers; the report lists them"
        )
    lines.append(f"{report.verdict} under {report.profile}; report in {out}, page {out / 'report.html'}")
    lines.append(
        f"receipts in {out / 'receipts'}; once witnesses have cosigned {log}: prune-auditor receipt {out} --log {log}"
    )
    done(
        as_json,
        lines,
        verdict=report.verdict,
        profile=report.profile,
        findings=[{"threat": f.threat, "check": f.check} for f in report.findings],
        report=str(out),
    )
    sys.exit(EXIT_CODES[report.verdict])


@click.command()
@click.argument("report", type=FOLDER)
@with_options(LOG, JSON)
def receipt(report: Path, log: Path, as_json: bool) -> None:
    """Finish a REPORT and its receipts once the witnesses have cosigned the log's checkpoint."""
    from auditor.files import write_atomic
    from auditor.ledger import Ledger
    from auditor.verify import finish

    changed = finish(report, Ledger(log=log), write=write_atomic)
    lines = [
        f"{report}: {changed} files brought up to date",
        f"give each requester a file of {report / 'receipts'}, and a page to check it with: prune-auditor receipt-page",
    ]
    done(as_json, lines, changed=changed)


@click.command()
@click.argument("report", type=FOLDER)
@click.argument("bundle", type=FOLDER)
@click.option(
    "--allow-command",
    is_flag=True,
    help="Run the command that the report's plan names for the owner's method. Read it first: it is a program.",
)
@with_options(POLICY, TRUST, OPENINGS, REFERENCE, OWNER_LOG, SHADOWS, BACKEND, WORKERS, SCHEDULER, DEVICE, SEED, JSON)
def replay(
    report: Path,
    bundle: Path,
    allow_command: bool,
    policy: Path,
    trust: Path,
    openings: Path | None,
    reference: Path | None,
    owner_log: Path | str | None,
    shadow_cache: Path | None,
    backend: str | None,
    workers: int,
    scheduler: str | None,
    device: Device,
    seed: int,
    as_json: bool,
) -> None:
    """Run a report's audit again from its plan and nonce, as of its own time, and compare."""
    from auditor.verify import replay as run

    differences, fresh = run(
        report,
        bundle,
        policy=read_policy(policy),
        trust=read_trust(trust),
        openings=openings,
        reference=reference,
        owner_log=owner_log,
        key=keys.generate("replay", use="statement"),
        seed=seed,
        shadow_cache=shadow_cache,
        engine=engine_of(backend, workers, scheduler, device),
        device=device,
        allow_command=allow_command,
        progress=progress_bar(),
    )
    if differences:
        raise VerificationError("not reproduced: " + "; ".join(differences[:5]), where=str(report))
    done(
        as_json, [f"reproduced: {fresh['verdict']} under {fresh['profile']}"], verdict=fresh["verdict"], differences=[]
    )
    sys.exit(EXIT_CODES[fresh["verdict"]])
