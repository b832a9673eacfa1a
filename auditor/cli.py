"""`prune-auditor`: open audits, challenge, audit, hand out receipts; verify all of it offline."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import click

from protocol import keys
from protocol.encoding import format_time, parse_time
from protocol.errors import AuditorError, Error, MalformedError, NoQuorum, VerificationError
from protocol.messages.report import EXIT_CODES

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


class _Time(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_time(str(value))
        except MalformedError as error:
            self.fail(error.message, param, ctx)


def _fail(error: Error, code: int) -> NoReturn:
    click.echo(f"prune-auditor: {error}", err=True)
    _reason(error.reason, error.where)
    sys.exit(code)


def _reason(reason: str, at: str = "") -> None:
    # For other programs, who cannot read a sentence: tests/conformance/CLI_PROTOCOL.md.
    if Program.as_json:
        click.echo(json.dumps({"reason": reason, "at": str(Error("", where=at)).removesuffix(": ")}, sort_keys=True))


class Program(click.Group):
    """Turns our errors into one line and an exit code; anything else is our own bug and says so."""

    as_json: ClassVar[bool] = False

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Register a command; options that every command takes by contract are accepted even where they do nothing."""
        click.version_option(package_name="prune-audit", prog_name="prune-auditor")(cmd)
        known = {option for parameter in cmd.params for option in parameter.opts}
        kinds: dict[str, dict[str, Any]] = {
            "--now": {"type": _Time()},
            "--seed": {"type": click.IntRange(0)},
            "--force": {"is_flag": True},
            "--resume": {"is_flag": True},
        }
        for option, settings in kinds.items():
            if option not in known:
                cmd.params.append(click.Option([option], expose_value=False, hidden=True, **settings))
        super().add_command(cmd, name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; a usage error is one line as well."""
        kwargs["standalone_mode"] = False
        given = kwargs["args"] if "args" in kwargs else args[0] if args else None
        Program.as_json = "--json" in (given if given is not None else sys.argv[1:])
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"prune-auditor: {error.format_message()} (see --help)", err=True)
            _reason("usage")
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Exit codes: 0 CONSISTENT or done, 1 our own bug, 2 usage, 3 REFUTED, 4 malformed or unverifiable,
        5 INCONCLUSIVE.
        """
        try:
            return super().invoke(ctx)
        except (MalformedError, VerificationError) as error:
            _fail(error, 4)
        except Error as error:
            _fail(error, 2)
        except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except Exception as error:
            click.echo(f"prune-auditor: this is a bug in prune-auditor ({type(error).__name__}: {error})", err=True)
            _reason("bug")
            if "PRUNE_AUDIT_DEBUG" in os.environ:
                raise
            sys.exit(1)


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON line, the last of standard output.")
NOW = click.option(
    "--now", type=_Time(), default=None, help="Time to write, for tests and replays.  [default: the clock]"
)
FORCE = click.option("--force", is_flag=True, help="Overwrite what is there.")
KEY = click.option(
    "--key", required=True, type=FILE, help="The auditor's statement key (for witness: the witness key)."
)
LOG = click.option("--log", required=True, type=FOLDER, help="The auditor's log.")
OUT = click.option("--out", required=True, type=PATH, help="What to write.")
POLICY = click.option("--policy", required=True, type=FILE, help="Trusted logs and witnesses (C2SP tlog-policy).")
TRUST = click.option("--trust", required=True, type=FILE, help="Trusted signers (trust.json).")
SEED = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what no challenge determines."
)
REFERENCE = click.option("--reference", type=FILE, help="Your own data, which the model never saw: .npz with X, y.")
OPENINGS = click.option("--openings", type=FOLDER, help="The owner's answer to the challenge.")
OWNER_LOG = click.option("--owner-log", type=FOLDER, help="The owner's log folder, to check that it only grew.")
SHADOWS = click.option(
    "--shadows", "shadow_cache", type=PATH, help="Keep trained shadow models here.  [default: beside --log]"
)


def _with(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _clock(now: int | None) -> int:
    return int(time.time()) if now is None else now


def _done(as_json: bool, lines: list[str], **facts: Any) -> None:
    for line in lines:
        click.echo(line)
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))


def _progress() -> Callable[[str, float], None]:
    if not sys.stderr.isatty():
        return lambda _stage, _share: None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    # On standard error, and standard output left alone: a result must not be drawn over.
    bar = Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        TimeRemainingColumn(),
        transient=True,
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = bar.add_task("starting", total=1.0)
    bar.start()
    click.get_current_context().call_on_close(bar.stop)
    return lambda stage, share: bar.update(task, description=stage, completed=share)


def _fresh(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise AuditorError("exists; give --force to overwrite, or another --out", where=str(out))


def _read(path: Path, limit: int = 1 << 20) -> bytes:
    from auditor.files import read_file

    return read_file(path, limit=limit)


def _policy(path: Path) -> bytes:
    from protocol.log import policy as policy_file

    return _checked(path, policy_file.parse)


def _trust(path: Path) -> bytes:
    from protocol import trust as trust_file

    return _checked(path, trust_file.parse)


def _checked(path: Path, parse: Callable[[bytes], object]) -> bytes:
    # Parsed here only so that an error names the file as the user wrote it.
    data = _read(path)
    try:
        parse(data)
    except Error as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return data


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="prune-audit", prog_name="prune-auditor")
def main() -> None:
    """Check from outside what a model's owner claims to have unlearned, and hand out receipts.

    Exit codes: 0 CONSISTENT or done, 1 a bug here, 2 usage, 3 REFUTED, 4 malformed or unverifiable, 5 INCONCLUSIVE.
    """


@main.command()
@click.argument("name")
@click.option(
    "--use",
    required=True,
    type=click.Choice(["statement", "log", "witness", "witness-ml-dsa"]),
    help="What the key is for.",
)
@_with(OUT, FORCE, JSON)
def keygen(name: str, use: str, out: Path, force: bool, as_json: bool) -> None:
    """Make a key pair: NAME.key (secret, 0600) and NAME.vkey (C2SP verifier key) in the folder OUT."""
    try:
        key = keys.generate(name, use=use)  # type: ignore[arg-type]
    except MalformedError as error:
        raise AuditorError(error.message) from None
    secret, public = keys.write_key_pair(key, out, force=force)
    _done(as_json, [f"{secret} and {public}: {key.verifier.vkey}"], key=str(secret), vkey=key.verifier.vkey)


@main.command("log-init")
@click.option("--origin", required=True, help="The log's name in checkpoints; the log key's name.")
@click.option("--key", required=True, type=FILE, help="The log's own key (keygen --use log).")
@_with(OUT, JSON)
def log_init(origin: str, key: Path, out: Path, as_json: bool) -> None:
    """Begin an empty transparency log in the folder OUT; its key is kept beside it as OUT.key."""
    from auditor.files import write_atomic
    from auditor.ledger import Ledger
    from protocol.log.store import Log

    signing = keys.load_signing_key(key)
    if signing.name != origin:
        raise AuditorError(f"the key is named {signing.name}, a log's key has the log's origin as its name ({origin})")
    Log.create(out, signing)
    write_atomic(Ledger(log=out).key_path, _read(key, 4096), secret=True)
    _done(as_json, [f"{out}: an empty log {origin}"], log=str(out), vkey=signing.verifier.vkey)


@main.command()
@click.option("--slip", required=True, type=FILE, help="The subject's slip.")
@click.option("--deadline", type=_Time(), help="By when the law wants an answer.")
@click.option("--key", required=True, type=FILE, help="The requester's statement key.")
@_with(LOG, OUT, NOW, FORCE, JSON)
def request(
    slip: Path, deadline: int | None, key: Path, log: Path, out: Path, now: int | None, force: bool, as_json: bool
) -> None:
    """Sign and log a subject's own deletion request for the records of a slip."""
    from auditor.ledger import Ledger, leaf_of
    from auditor.opening import request_from_slip

    _fresh(out, force)
    envelope = request_from_slip(
        _read(slip, 1 << 28),
        key=keys.load_signing_key(key),
        ledger=Ledger(log=log),
        out=out,
        now=_clock(now),
        deadline=deadline,
    )
    _done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], request=leaf_of(envelope))


@main.command("open-audit")
@click.argument("requests", nargs=-1, required=True, type=FILE)
@click.option("--plan", required=True, type=FILE, help="What the audit will do; see plan --template.")
@_with(KEY, LOG, OUT, NOW, FORCE, JSON)
def open_audit(
    requests: tuple[Path, ...], plan: Path, key: Path, log: Path, out: Path, now: int | None, force: bool, as_json: bool
) -> None:
    """Fix plan and nonce in the log before the owner certifies."""
    import secrets

    from auditor.ledger import Ledger, leaf_of
    from auditor.opening import open_audit as run

    _fresh(out, force)
    envelope = run(
        requests,
        _read(plan, 1 << 18),
        nonce=secrets.token_bytes(32),
        key=keys.load_signing_key(key),
        ledger=Ledger(log=log),
        out=out,
        now=_clock(now),
    )
    _done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], opening=leaf_of(envelope))


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--opening", required=True, type=FILE, help="The opened audit.")
@click.option("--acknowledgement", type=FILE, help="The owner's, for an audit opened after the certificate.")
@_with(KEY, LOG, OUT, NOW, FORCE, JSON)
def challenge(
    bundle: Path,
    opening: Path,
    acknowledgement: Path | None,
    key: Path,
    log: Path,
    out: Path,
    now: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Ask the owner to open retained records that neither side chose."""
    from auditor.ledger import Ledger, leaf_of
    from auditor.opening import make_challenge

    _fresh(out, force)
    envelope = make_challenge(
        bundle,
        _read(opening),
        acknowledgement=_read(acknowledgement) if acknowledgement is not None else None,
        key=keys.load_signing_key(key),
        ledger=Ledger(log=log),
        out=out,
        now=_clock(now),
    )
    _done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], challenge=leaf_of(envelope))


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--profile", required=True, help="A profile file, or redirection or indistinguishable.")
@click.option("--endpoint", help="A live endpoint to query (not yet supported: the deployment check says so).")
@click.option("--state", type=PATH, help="Remember logs' checkpoints here.")
@_with(POLICY, TRUST, OPENINGS, REFERENCE, OWNER_LOG, SHADOWS, SEED, KEY, LOG, OUT, NOW, FORCE, JSON)
def audit(
    bundle: Path,
    profile: str,
    endpoint: str | None,
    state: Path | None,
    policy: Path,
    trust: Path,
    openings: Path | None,
    reference: Path | None,
    owner_log: Path | None,
    shadow_cache: Path | None,
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
    from auditor.ledger import Ledger
    from auditor.profile import load_profile
    from protocol.log.store import Log

    if endpoint is not None:
        raise AuditorError("querying an endpoint is not supported yet; leave --endpoint away")
    ledger = Ledger(log=log)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise AuditorError("exists and is not empty; give --force to overwrite, or another --out", where=str(out))
    policy_bytes, trust_bytes, signing = _policy(policy), _trust(trust), keys.load_signing_key(key)
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
        now=_clock(now),
        seed=seed,
        progress=_progress(),
    )
    outcome = command.examine(inputs)
    report = command.write_report(inputs, outcome, out, force=force)
    lines = [f"{result.check:13} {result.verdict:13} {result.summary}" for result in outcome.view.checks]
    lines += [f"finding: {f.threat} ({f.check}): {f.message}" for f in outcome.view.findings]
    lines.append(f"{report.verdict} under {report.profile}; report in {out}, page {out / 'report.html'}")
    _done(
        as_json,
        lines,
        verdict=report.verdict,
        profile=report.profile,
        findings=[{"threat": f.threat, "check": f.check} for f in report.findings],
        report=str(out),
    )
    sys.exit(EXIT_CODES[report.verdict])


@main.command()
@click.argument("report", type=FOLDER)
@_with(LOG, JSON)
def receipt(report: Path, log: Path, as_json: bool) -> None:
    """Finish a REPORT and its receipts once the witnesses have cosigned the log's checkpoint."""
    from auditor.files import write_atomic
    from auditor.ledger import Ledger
    from auditor.verify import finish

    changed = finish(report, Ledger(log=log), write=write_atomic)
    _done(as_json, [f"{report}: {changed} files brought up to date"], changed=changed)


@main.command("verify-receipt")
@click.argument("receipt", type=FILE)
@click.option("--slip", type=FILE, help="The subject's slip: then also whose records it is about is checked.")
@_with(POLICY, TRUST, JSON)
def verify_receipt(receipt: Path, slip: Path | None, policy: Path, trust: Path, as_json: bool) -> None:
    """Verify a receipt offline; exits with the verdict that it carries."""
    from auditor import receipts, trusted
    from protocol.receipt_file import MAX_RECEIPT

    trusted_logs, signers = trusted.read(_policy(policy), _trust(trust))
    try:
        result = receipts.verify(
            _read(receipt, MAX_RECEIPT),
            policy=trusted_logs,
            trust=signers,
            slip=_read(slip, 1 << 28) if slip is not None else None,
        )
    except Error as error:
        error.where = f"{receipt}, {error.where}" if error.where else str(receipt)
        raise
    lines = [*result.steps, f"verdict: {result.verdict} under the profile {result.profile}"]
    lines += [f"finding: {finding.threat} ({finding.check})" for finding in result.findings]
    lines += ["not proven:", *(f"  - {sentence}" for sentence in result.not_proven)]
    _done(
        as_json,
        lines,
        verdict=result.verdict,
        profile=result.profile,
        findings=[{"threat": f.threat, "check": f.check} for f in result.findings],
        records=result.records,
        requestedBySubject=result.requested_by_subject,
    )
    sys.exit(EXIT_CODES[result.verdict])


@main.command("verify-report")
@click.argument("report", type=FOLDER)
@_with(POLICY, TRUST, JSON)
def verify_report(report: Path, policy: Path, trust: Path, as_json: bool) -> None:
    """Verify a REPORT folder offline: signature, log, every file, every receipt."""
    from auditor.verify import verify_report as run

    result = run(report, policy=_policy(policy), trust=_trust(trust))
    _done(
        as_json,
        [
            f"{len(result.files)} files and {result.receipts} receipts are the ones that were signed",
            f"verdict: {result.report.verdict} under the profile {result.report.profile}",
        ],
        verdict=result.report.verdict,
        profile=result.report.profile,
    )
    sys.exit(EXIT_CODES[result.report.verdict])


@main.command()
@click.argument("report", type=FOLDER)
@click.argument("bundle", type=FOLDER)
@_with(POLICY, TRUST, OPENINGS, REFERENCE, OWNER_LOG, SHADOWS, SEED, JSON)
def replay(
    report: Path,
    bundle: Path,
    policy: Path,
    trust: Path,
    openings: Path | None,
    reference: Path | None,
    owner_log: Path | None,
    shadow_cache: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Run a report's audit again from its plan and nonce, as of its own time, and compare."""
    from auditor.verify import replay as run

    differences, fresh = run(
        report,
        bundle,
        policy=_policy(policy),
        trust=_trust(trust),
        openings=openings,
        reference=reference,
        owner_log=owner_log,
        key=keys.generate("replay", use="statement"),
        seed=seed,
        shadow_cache=shadow_cache,
        progress=_progress(),
    )
    if differences:
        raise VerificationError("not reproduced: " + "; ".join(differences[:5]), where=str(report))
    _done(
        as_json, [f"reproduced: {fresh['verdict']} under {fresh['profile']}"], verdict=fresh["verdict"], differences=[]
    )
    sys.exit(EXIT_CODES[fresh["verdict"]])


@main.command("verify-log")
@click.argument("log")
@click.option("--state", type=PATH, help="Remember the checkpoint here, and check that the log only grew.")
@click.option("--max-age", type=click.IntRange(1), help="Refuse a checkpoint whose witness time is older, in seconds.")
@_with(POLICY, NOW, JSON)
def verify_log(log: str, state: Path | None, max_age: int | None, policy: Path, now: int | None, as_json: bool) -> None:
    """Check every file of a log, a folder or an http(s) URL, against its signed checkpoint."""
    from protocol.errors import Consistency, Rollback
    from protocol.log import http, verify, witness
    from protocol.log import policy as policy_file

    trusted = policy_file.parse(_policy(policy))
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
            verify.verify_fresh(summary.checkpoint, now=_clock(now), max_age=max_age)
    except (Consistency, Rollback) as error:
        if state is None or not isinstance(error, Consistency):
            raise
        # Two checkpoints, both signed by the log, that no append-only log can have: that is proof, and both are kept.
        _fail(error, 3)
    checkpoint = summary.checkpoint
    when = f", witnessed by {format_time(checkpoint.time)}" if checkpoint.time is not None else ""
    witnesses = ", ".join(sorted(checkpoint.cosigned)) or "none"
    _done(
        as_json,
        [f"{log}: {summary.size} entries of {summary.origin}, every file checked; witnesses: {witnesses}{when}"],
        origin=summary.origin,
        size=summary.size,
        root=summary.root.hex(),
        quorum=checkpoint.quorum_met,
    )
    if trusted.quorum != "none" and not checkpoint.quorum_met:
        raise NoQuorum("the quorum has not cosigned this checkpoint; run the witnesses", where=f"{log}/checkpoint")


@main.command()
@click.argument("log", type=FOLDER)
@click.option("--state", required=True, type=PATH, help="What the witness remembers; it has to outlive every run.")
@click.option("--policy", type=FILE, help="Where the log's key stands.")
@click.option("--log-key", help="The log's verifier key, instead of --policy.")
@_with(KEY, NOW, JSON)
def witness(
    log: Path, state: Path, policy: Path | None, log_key: str | None, key: Path, now: int | None, as_json: bool
) -> None:
    """Cosign a log's checkpoint if it extends what this witness saw before."""
    from protocol.errors import Consistency
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
        known = [entry.key for entry in policy_file.parse(_policy(policy)).logs if entry.key.name == origin]
        if not known:
            raise VerificationError(f"the policy lists no log {origin!r}", where=str(log))
        trusted = known[0]
    try:
        command.cosign(log, keys.load_signing_key(key), state, _clock(now), log_key=trusted)
    except Consistency as error:
        # Two checkpoints, both signed by the log, that no append-only log can have: that is proof, and both are kept.
        _fail(error, 3)
    size = Log.open(log).size
    _done(as_json, [f"{log}: {size} entries of {trusted.name} cosigned"], size=size, origin=trusted.name)


@main.command()
@click.option("--template", is_flag=True, help="Print a plan to start from.")
@click.option("--profile", default="indistinguishable", show_default=True, help="The profile that it fixes.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="The seed that it fixes.")
@click.option("--check", type=FILE, help="A plan to read and describe.")
@_with(JSON)
def plan(template: bool, profile: str, seed: int, check: Path | None, as_json: bool) -> None:
    """Print a plan to start from, or read one."""
    from auditor.profile import load_profile, parse_plan, plan_template

    if template == (check is not None):
        raise AuditorError("give --template, or --check with a plan")
    if check is not None:
        parsed = parse_plan(_read(check), where=str(check))
        _done(
            as_json,
            [f"{check}: profile {parsed.profile}, {parsed.openings} openings, seed {parsed.seed}"],
            profile=parsed.profile,
            openings=parsed.openings,
        )
        return
    text = plan_template(load_profile(profile), seed=seed).decode()
    click.echo(json.dumps({"plan": text}) + "\n" if as_json else text, nl=False)


@main.command()
@click.option(
    "--format", "shape", default="table", show_default=True, type=click.Choice(["table", "json"]), help="How."
)
@JSON
def threats(shape: str, as_json: bool) -> None:
    """Print the threat model: behaviours, the checks that catch them, and what is out of reach."""
    from auditor.threats import as_table, load_threats

    found = load_threats()
    click.echo(json.dumps([threat.to_json() for threat in found]) if as_json or shape == "json" else as_table(found))


if __name__ == "__main__":
    main()
