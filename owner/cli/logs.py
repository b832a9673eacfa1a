"""What is published once witnesses have cosigned."""

from pathlib import Path

import click

from protocol.errors import Error
from protocol.program import FILE, FOLDER, JSON, done, with_options


@click.command()
@click.argument("log", type=FOLDER)
@click.option("--policy", required=True, type=FILE, help="Witnesses and their addresses (C2SP tlog-policy).")
@with_options(JSON)
def cosign(log: Path, policy: Path, as_json: bool) -> None:
    """Have a log's checkpoint cosigned by the witnesses that the policy names with an address."""
    from owner.files import read_file
    from protocol.log import policy as policy_file
    from protocol.log.publish import publish as run

    try:
        trusted = policy_file.parse(read_file(policy, limit=policy_file.MAX_POLICY))
    except Error as error:
        error.where = f"{policy}, {error.where}" if error.where else str(policy)
        raise
    lines, facts, complaint = run(log, trusted).told(str(log))
    done(as_json, lines, **facts)
    if complaint is not None:
        raise complaint


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--log", required=True, type=FOLDER, help="The owner's log.")
@with_options(JSON)
def publish(folder: Path, log: Path, as_json: bool) -> None:
    """Bring the log proofs of a bundle, answer or commitment FOLDER to the log's current, cosigned checkpoint."""
    from owner.certify import refresh_proofs

    changed = refresh_proofs(folder, log)
    done(as_json, [f"{folder}: {changed} proofs brought up to date"], changed=changed)
