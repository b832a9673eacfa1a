"""`prune-auditor`: open audits, challenge, audit, hand out receipts; verify all of it offline."""

import click

from auditor.cli import audit, identity, logs, opening, plans, verification
from auditor.cli.program import Program


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="prune-audit", prog_name="prune-auditor")
def main() -> None:
    """Check from outside what a model's owner claims to have unlearned, and hand out receipts.

    Exit codes: 0 CONSISTENT or done, 1 a bug here, 2 usage, 3 REFUTED, 4 malformed or unverifiable, 5 INCONCLUSIVE.
    """


COMMANDS = (
    identity.keygen,
    identity.log_init,
    opening.request,
    opening.open_audit,
    opening.challenge,
    audit.audit,
    audit.receipt,
    audit.replay,
    verification.verify_receipt,
    verification.receipt_page,
    verification.verify_report,
    logs.verify_log,
    logs.witness,
    logs.witness_serve,
    logs.cosign,
    logs.export_receipt,
    plans.plan,
    plans.threats,
)
for command in COMMANDS:
    main.add_command(command)

__all__ = ["main"]
