"""Logs: verify one, cosign its checkpoint."""

from pathlib import Path

import click

from auditor.cli.program import FILE, FOLDER, JSON, KEY, NOW, PATH, POLICY, clock, done, fail, read_policy, with_options
from protocol import keys
from protocol.encoding import format_time
from protocol.errors import AuditorError, VerificationError


@click.command("verify-log")
@click.argument("log")
@click.option("--state", type=PATH, help="Remember the checkpoint here, and check that the log only grew.")
@click.option("--max-age", type=click.IntRange(1), help="Refuse a checkpoint whose witness time is older, in seconds.")
@with_options(POLICY, NOW, JSON)
def verify_log(log: str, state: Path | None, max_age: int | None, policy: Path, now: int | None, as_json: bool) -> None:
    """Check every file of a log, a folder or an http(s) URL, against its signed checkpoint."""
    from protocol.errors import Consistency, Rollback
    from protocol.log import http, verify, witness
    from protocol.log import policy as policy_file

    trusted = policy_file.parse(read_policy(policy))
    try:
        if http.is_url(log):
            with http.Client(log) as client:
                summary = (
                    witness.watch_served(client.fetch, trusted, state)
                    if state is not None
                    else verify.verify_served(client.fetch, trusted, keep_leaves=False)
                )
        elif not Path(log).is_dir():
            raise AuditorError("is not a folder, nor an http(s) URL", where=log)
        else:
            folder = Path(log)
            summary = witness.watch(folder, trusted, state) if state is not None else verify.verify_log(folder, trusted)
        if max_age is not None:
            verify.verify_fresh(summary.checkpoint, now=clock(now), max_age=max_age)
    except (Consistency, Rollback) as error:
        if state is None or not isinstance(error, Consistency):
            raise
        # Two checkpoints, both signed by the log, that no append-only log can have: that is proof, and both are kept.
        fail(error, 3)
    checkpoint = summary.checkpoint
    when = f", witnessed by {format_time(checkpoint.time)}" if checkpoint.time is not None else ""
    witnesses = ", ".join(sorted(checkpoint.cosigned)) or "none"
    done(
        as_json,
        [f"{log}: {summary.size} entries of {summary.origin}, every file checked; witnesses: {witnesses}{when}"],
        origin=summary.origin,
        size=summary.size,
        root=summary.root.hex(),
        quorum=checkpoint.quorum_met,
    )
    if trusted.quorum != "none" and not checkpoint.quorum_met:
        raise VerificationError(
            "the quorum has not cosigned this checkpoint; run the witnesses", where=f"{log}/checkpoint"
        )


@click.command()
@click.argument("log", type=FOLDER)
@click.option("--state", required=True, type=PATH, help="What the witness remembers; it has to outlive every run.")
@click.option("--policy", type=FILE, help="Where the log's key stands.")
@click.option("--log-key", help="The log's verifier key, instead of --policy.")
@with_options(KEY, NOW, JSON)
def witness(
    log: Path, state: Path, policy: Path | None, log_key: str | None, key: Path, now: int | None, as_json: bool
) -> None:
    """Cosign a log's checkpoint if it extends what this witness saw before."""
    from protocol.log import policy as policy_file
    from protocol.log import witness as command
    from protocol.log.store import Log

    if (policy is None) == (log_key is None):
        raise AuditorError("give the log's key by --policy or by --log-key")
    if log_key is not None:
        trusted = keys.parse_vkey(log_key)
    else:
        assert policy is not None
        origin = Log.open(log).origin
        known = [entry.key for entry in policy_file.parse(read_policy(policy)).logs if entry.key.name == origin]
        if not known:
            raise VerificationError(f"the policy lists no log {origin!r}", where=str(log))
        trusted = known[0]
    command.cosign(log, keys.load_signing_key(key), state, clock(now), log_key=trusted)
    size = Log.open(log).size
    done(as_json, [f"{log}: {size} entries of {trusted.name} cosigned"], size=size, origin=trusted.name)
