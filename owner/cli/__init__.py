"""`prune-owner`: commit, answer requests, sign certificates, answer challenges."""

import click

from owner.cli import answering, commitment, exporting, identity, logs, requesting, unlearning
from owner.cli.program import Program


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="prune-audit", prog_name="prune-owner")
def main() -> None:
    """Answer unlearning requests with a patch and a signed certificate that an outside auditor can check.

    Exit codes: 0 done, 1 a bug here, 2 usage, 3 refused to sign what cannot be proven, 4 malformed input.
    """


COMMANDS = (
    identity.keygen,
    identity.log_init,
    commitment.commit,
    commitment.slip,
    requesting.request,
    unlearning.unlearn,
    answering.answer,
    answering.acknowledge,
    exporting.export,
    logs.cosign,
    logs.publish,
)
for command in COMMANDS:
    main.add_command(command)

__all__ = ["main"]
