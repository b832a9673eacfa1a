"""`prune-owner`: commit, answer requests, sign certificates, answer challenges."""

import contextlib
import errno
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

import click

from owner.refusal import Refused
from protocol import keys
from protocol.encoding import parse_time
from protocol.errors import Error, MalformedError, OwnerError, VerificationError

Device = Literal["cpu", "cuda"]
F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
METHODS = (
    "prune", "prune-paper", "distribution-matching", "instance-wise", "retrain", "fine-tune", "gradient-ascent",
    "deny-list",
)  # fmt: skip
GATES = ["auto", "sketch", "feature", "linear-region", "always", "sketch+feature"]
HEADS = ["set", "shift", "affine"]
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
DEVICE = click.option(
    "--device",
    default="cpu",
    show_default=True,
    type=click.Choice(["cpu", "cuda"]),
    help="Where to train; a GPU adds up in another order, so models differ in rounding.",
)


class _Time(click.ParamType[int]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_time(str(value))
        except MalformedError as error:
            self.fail(error.message, param, ctx)


def _fail(error: Error, code: int) -> NoReturn:
    click.echo(f"prune-owner: {error}", err=True)
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
        """Register a command; each one has --version."""
        click.version_option(package_name="prune-audit", prog_name="prune-owner")(cmd)
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
            click.echo(f"prune-owner: {error.format_message()} (see --help)", err=True)
            _reason("usage")
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Exit codes: 0 done, 1 our own bug, 2 usage, 3 refused to sign, 4 malformed or unverifiable input.
        """
        try:
            return super().invoke(ctx)
        except Refused as error:
            _fail(error, 3)
        except (MalformedError, VerificationError) as error:
            _fail(error, 4)
        except Error as error:
            _fail(error, 2)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output went away; click knows what to do
                raise
            _fail(OwnerError(f"the file system refuses: {error.strerror or error}", where=str(error.filename or "")), 2)
        except MemoryError:
            _fail(
                OwnerError("not enough memory for this model and data; commit fewer records or use a larger machine"), 2
            )
        except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except Exception as error:  # the last resort: a readable line instead of a traceback
            click.echo(f"prune-owner: this is a bug in prune-owner ({type(error).__name__}: {error})", err=True)
            _reason("bug")
            if "--debug" in sys.argv:
                raise
            sys.exit(1)


def _accepted(name: str, **kwargs: Any) -> Callable[[F], F]:
    # Part of the contract for every command; here nothing depends on it.
    return click.option(name, expose_value=False, hidden=True, **kwargs)


def _common(*, key: bool = False, out: bool = False, now: bool = True, seed: bool = False) -> Callable[[F], F]:
    options = [
        click.option("--json", "as_json", is_flag=True, help="Print one JSON line, the last of standard output."),
    ]
    clock = "Time to write, for tests and replays.  [default: the clock]"
    options.append(click.option("--now", type=_Time(), help=clock) if now else _accepted("--now", type=_Time()))
    if seed:
        options.append(
            click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is random.")
        )
        options.append(click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped."))
    else:
        options += [_accepted("--seed", type=click.IntRange(0)), _accepted("--resume", is_flag=True)]
    if key:
        options += [
            click.option("--key", required=True, type=FILE, help="The owner's statement key."),
            click.option("--log", required=True, type=FOLDER, help="The owner's log."),
        ]
    if out:
        options.append(click.option("--force", is_flag=True, help="Overwrite what is there."))
        options.append(click.option("--out", required=True, type=PATH, help="What to write."))
    else:
        options.append(_accepted("--force", is_flag=True))

    def decorate(function: F) -> F:
        for option in options:
            function = option(function)
        return function

    return decorate


def _clock(now: int | None) -> int:
    return int(time.time()) if now is None else now


def _believing(function: F) -> F:
    logs = "Logs and witnesses that count (C2SP tlog-policy); with --trust."
    whose = "Whose signatures count, as what; with --policy."
    for name, help_text in (("--trust", whose), ("--policy", logs)):
        function = click.option(name, type=FILE, help=help_text)(function)
    return function


def _done(as_json: bool, lines: list[str], **facts: Any) -> None:
    for line in lines:
        click.echo(line)
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Shows bars on a terminal while it is open; closed before results are printed."""
    if not sys.stderr.isatty():
        yield lambda _stage, _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    # Standard output is for results, even when only standard error is a terminal.
    columns = (TextColumn("{task.description:28}"), BarColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:

        def show(stage: str, share: float) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=share, visible=True)

        yield show


def _statement_key(path: Path) -> keys.SigningKey:
    key = keys.load_signing_key(path)
    if key.use != keys.USES["statement"]:
        raise OwnerError("is a witness's key; statements need their own (keygen --use statement)", where=str(path))
    return key


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="prune-audit", prog_name="prune-owner")
def main() -> None:
    """Answer unlearning requests with a patch and a signed certificate that an outside auditor can check.

    Exit codes: 0 done, 1 a bug here, 2 usage, 3 refused to sign what cannot be proven, 4 malformed input.
    """


@main.command()
@click.argument("name")
@click.option(
    "--use",
    required=True,
    type=click.Choice(["statement", "log", "witness", "witness-ml-dsa"]),
    help="What the key is for.",
)
@click.option("--passphrase", "locked", is_flag=True, help="Protect the secret; asked for, or from the environment.")
@click.option("--signer", help="Command of a signer that has the secret (SPEC 4.6); only its public key is kept here.")
@_common(out=True, now=False)
def keygen(name: str, use: str, locked: bool, signer: str | None, out: Path, as_json: bool, force: bool) -> None:
    """Make a key pair: NAME.key (secret, 0600) and NAME.vkey (C2SP verifier key) in the folder OUT."""
    from protocol.keygen import make_pair

    try:
        keys.check_name(name)
    except MalformedError as error:
        raise OwnerError(error.message) from None
    secret, public, made = make_pair(name, use, out, locked=locked, command=signer, force=force)
    _done(as_json, [f"{secret} and {public}: {made.vkey}"], key=str(secret), vkey=made.vkey)


@main.command("log-init")
@click.option("--origin", required=True, help="The log's name in checkpoints; the log key's name.")
@click.option("--key", required=True, type=FILE, help="The log's own key (keygen --use log).")
@_common(out=True, now=False)
def log_init(origin: str, key: Path, out: Path, as_json: bool, force: bool) -> None:
    """Begin an empty transparency log in the folder OUT; its key is kept beside it as OUT.key.

    A log that exists is never overwritten; with --force a left-over OUT.key is.
    """
    from owner.files import check_free, check_free_folder, read_file, write_atomic
    from owner.journal import log_key_path
    from protocol.log.store import Log

    signing = keys.load_signing_key(key)
    if signing.name != origin:
        raise OwnerError(f"the key is named {signing.name}, a log's key has the log's origin as its name ({origin})")
    check_free_folder(out, force=False)
    check_free(log_key_path(out), force=force)
    Log.create(out, signing)
    write_atomic(log_key_path(out), read_file(key, limit=keys.MAX_KEY_FILE), secret=True)
    _done(as_json, [f"{out}: an empty log {origin}"], log=str(out), vkey=signing.verifier.vkey)


@main.command()
@click.option("--model", required=True, type=FILE, help="Base model: an ONNX file inside the profile.")
@click.option(
    "--data", required=True, type=FILE, help="Training data: .npz with X_train, y_train (and X_test, y_test)."
)
@click.option("--schema", "schema_path", type=FILE, help="Input schema.  [default: inferred from data and model]")
@click.option(
    "--recipe", "recipe_path", type=FILE, help="Training recipe, for cross-fitted models.  [default: Adam, 30 epochs]"
)
@click.option("--folds", default=10, show_default=True, type=click.IntRange(2), help="Cross-fitted models to prepare.")
@click.option("--no-prepare", is_flag=True, help="Prepare none; the target match cannot be had then.")
@click.option("--previous", type=FOLDER, help="An earlier commitment whose salts records keep, so that returns show.")
@DEVICE
@_common(key=True, out=True, seed=True)
def commit(
    model: Path,
    data: Path,
    schema_path: Path | None,
    recipe_path: Path | None,
    folds: int,
    no_prepare: bool,
    previous: Path | None,
    device: Device,
    seed: int,
    resume: bool,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Fix base model and training records in the log, before any request."""
    from owner import commit as command

    options = command.Options(
        model=model,
        data=data,
        schema=schema_path,
        recipe=recipe_path,
        folds=0 if no_prepare else folds,
        key=_statement_key(key),
        log=log,
        out=out,
        now=_clock(now),
        seed=seed,
        force=force,
        resume=resume,
        previous=previous,
        device=device,
    )
    with _progress() as show:
        commitment, notes = command.commit(options, progress=show)
    _done(as_json, notes, records=commitment.record_count, base=commitment.base, root=commitment.records_root.hex())


def _wanted(records: str | None, subject: str | None, klass: int | None, trigger: str | None) -> Any:
    from owner.requests import Wanted

    rows: tuple[int, ...] | None = None
    if records is not None:
        parts = [part.strip() for part in records.split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
            raise OwnerError("--records takes row numbers of the data file, from 0, separated by commas")
        rows = tuple(int(part) for part in parts)
    if sum(value is not None for value in (rows, subject, klass, trigger)) != 1:
        raise OwnerError("give exactly one of --records, --subject, --class, --trigger")
    return Wanted(rows=rows, subject=subject, klass=klass, trigger=trigger)


@main.command()
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option("--subject", help="The subject whose records to open.")
@click.option("--records", help="Row numbers of the data file, from 0, separated by commas.")
@_common(out=True, now=False)
def slip(commitment: Path, subject: str | None, records: str | None, out: Path, as_json: bool, force: bool) -> None:
    """Write what a subject keeps: own records, salts, and proof that they are committed."""
    from owner.requests import make_slip
    from owner.workspace import Workspace

    wanted = _wanted(records, subject, None, None)
    count = make_slip(Workspace(folder=commitment), wanted, out=out, force=force)
    lines = [
        f"{out}: {count} records; give it to the subject and to nobody else",
        f"with it the subject asks: prune-auditor request --slip {out.name} --key KEY --log LOG --out request.json",
    ]
    _done(as_json, lines, slip=str(out), records=count)


@main.command()
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option("--records", help="Row numbers of the data file, from 0, separated by commas.")
@click.option("--class", "klass", type=click.IntRange(0), help="A whole class.")
@click.option("--subject", help="All records of one subject.")
@click.option("--trigger", help="A backdoor trigger, by name.")
@click.option("--deadline", type=_Time(), help="By when the law wants an answer.")
@_common(key=True, out=True)
def request(
    commitment: Path,
    records: str | None,
    klass: int | None,
    subject: str | None,
    trigger: str | None,
    deadline: int | None,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Sign and log a deletion request on a subject's behalf (it says so)."""
    from owner.journal import leaf_of
    from owner.requests import make_request
    from owner.workspace import Workspace

    envelope = make_request(
        Workspace(folder=commitment),
        _wanted(records, subject, klass, trigger),
        key=_statement_key(key),
        log=log,
        out=out,
        now=_clock(now),
        deadline=deadline,
        force=force,
    )
    if trigger is not None:
        click.echo(
            "note: a trigger has no records to redirect: prune-owner unlearn cannot answer this request, and every "
            "audit of it stays INCONCLUSIVE",
            err=True,
        )
    _done(as_json, [f"{out}: logged as {leaf_of(envelope)}"], request=leaf_of(envelope))


@main.command()
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option(
    "--request", "requests", required=True, multiple=True, type=FILE, help="A request to answer; may be repeated."
)
@click.option("--opening", type=FILE, help="The audit that was opened for them, to be named in the certificate.")
@click.option("--method", default="prune", show_default=True, type=click.Choice(METHODS), help="How to unlearn.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the method; may be repeated."
)
@click.option("--gate", default="auto", show_default=True, type=click.Choice(GATES), help="Where items act.")
@click.option(
    "--head",
    default="set",
    show_default=True,
    type=click.Choice(HEADS),
    help="What items give: a row of logits, or the least shift or affine map that is added to the base's.",
)
@click.option(
    "--target", default="match", show_default=True, help="What outputs become: match, misclassify, relabel:K."
)
@click.option(
    "--radius", help="Radius to certify, such as 8steps or 2flips.  [default: as large as retained records allow]"
)
@click.option(
    "--disclosure",
    type=click.FloatRange(0.0, 1.0),
    help="Least error of rebuilding a record from the patch, relative to guessing.  [default: 0.2]",
)
@click.option(
    "--merge", is_flag=True, help="Let records with the same output share items: fewer, but they reach between records."
)
@click.option("--previous", type=FOLDER, help="Bundle of the certificate to build on, if the commitment lacks it.")
@click.option("--beside", is_flag=True, help="Build on no earlier certificate: whoever reads the log sees that.")
@click.option(
    "--drop", "drops", multiple=True, help="Stop a claim of the earlier certificate: ROW=REASON or class:K=REASON."
)
@DEVICE
@_common(key=True, out=True, seed=True)
def unlearn(
    commitment: Path,
    requests: tuple[Path, ...],
    opening: Path | None,
    method: str,
    settings: tuple[str, ...],
    gate: str,
    head: str,
    target: str,
    radius: str | None,
    disclosure: float | None,
    merge: bool,
    previous: Path | None,
    beside: bool,
    drops: tuple[str, ...],
    device: Device,
    seed: int,
    resume: bool,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Make a patch for logged requests, check it, and sign and log the certificate.

    Where the log has a certificate about this commitment already, the new one builds on it: it answers its requests,
    too, and carries every claim that is not dropped.
    """
    from owner.journal import leaf_of
    from owner.methods.job import DISCLOSURE
    from owner.succession import parse_drop
    from owner.targets import parse_target
    from owner.unlearn import Options
    from owner.unlearn import unlearn as run
    from owner.workspace import Workspace

    if disclosure is not None and "sketch" not in gate and gate != "auto":
        raise OwnerError(f"--disclosure chooses a sketch, and --gate {gate} has none; leave it out")
    if beside and (previous is not None or drops):
        raise OwnerError("--beside builds on nothing: leave --previous and --drop away")
    steps, flips = _radius(radius)
    options = Options(
        requests=requests,
        opening=opening,
        method=method,
        target=parse_target(target),
        radius=steps,
        ceiling=steps if steps is not None else 64,
        flips=flips,
        disclosure=disclosure if disclosure is not None else DISCLOSURE,
        merge=merge,
        gate=gate,
        head=head,
        settings=_settings(settings),
        previous=previous,
        beside=beside,
        drops=tuple(parse_drop(drop) for drop in drops),
        device=device,
        key=_statement_key(key),
        log=log,
        out=out,
        now=_clock(now),
        seed=seed,
        force=force,
        resume=resume,
    )
    with _progress() as show:
        outcome = run(Workspace(folder=commitment), options, progress=show)
    if outcome.redirected and options.target.name != "match":
        click.echo(
            "note: a certified wrong output makes a record easier to find, not harder; see the target match", err=True
        )
    leaf = leaf_of(outcome.certificate)
    lines = [*outcome.notes, f"{out}: certificate logged as {leaf}"]
    _done(as_json, lines, certificate=leaf, claims=outcome.claims)


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if bad := next((text for text, (_, sign, _) in zip(given, pairs, strict=True) if not sign), None):
        raise OwnerError(f"--set {bad}: give NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _radius(radius: str | None) -> tuple[int | None, bool]:
    """The number, and whether it counts flips."""
    if radius is None:
        return None, False
    number = radius
    for unit in ("steps", "step", "flips", "flip"):
        number = number.removesuffix(unit) if number == radius else number
    if number == radius or not number.isascii() or not number.isdigit() or len(number) > 7 or int(number) > 1 << 20:
        raise OwnerError(
            f"--radius {radius}: a whole number up to {1 << 20} of grid steps, such as 8steps, or of changed binary "
            "columns and one-hot groups, such as 2flips"
        )
    return int(number), "flip" in radius


@main.command()
@click.argument("challenge", type=FILE)
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option("--acknowledgement", type=FILE, help="For an audit that was opened after the certificate.")
@click.option("--at-most", type=click.IntRange(1), help="Refuse to open more records than this.")
@_believing
@_common(key=True, out=True)
def answer(
    challenge: Path,
    commitment: Path,
    acknowledgement: Path | None,
    at_most: int | None,
    policy: Path | None,
    trust: Path | None,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Open the records that a challenge names.

    With --policy and --trust only for a challenge that a trusted auditor signed; where the challenge's .tlog-proof lies
    beside it, it has to show the challenge in that auditor's log, cosigned by the quorum.
    """
    from owner.answer import answer as run
    from owner.auditors import Auditors
    from owner.workspace import Workspace

    count, warning = run(
        Workspace(folder=commitment),
        challenge,
        acknowledgement=acknowledgement,
        key=_statement_key(key),
        log=log,
        out=out,
        now=_clock(now),
        force=force,
        at_most=at_most,
        auditors=Auditors.read(policy, trust),
    )
    lines = [f"{out}: {count} records opened", *([warning] if warning else [])]
    _done(as_json, lines, opened=count, warning=warning)


@main.command()
@click.argument("opening", type=FILE)
@click.option("--bundle", required=True, type=FOLDER, help="The bundle whose certificate is audited again.")
@_believing
@_common(key=True, out=True)
def acknowledge(
    opening: Path,
    bundle: Path,
    policy: Path | None,
    trust: Path | None,
    key: Path,
    log: Path,
    out: Path,
    as_json: bool,
    now: int | None,
    force: bool,
) -> None:
    """Acknowledge an audit that was opened after the certificate, so that it can be challenged.

    With --policy and --trust only one that a trusted auditor opened, as with `answer`.
    """
    from owner.answer import acknowledge as run
    from owner.auditors import Auditors
    from owner.journal import leaf_of

    envelope, warning = run(
        opening,
        bundle,
        key=_statement_key(key),
        log=log,
        out=out,
        now=_clock(now),
        force=force,
        auditors=Auditors.read(policy, trust),
    )
    lines = [f"{out}: logged as {leaf_of(envelope)}", *([warning] if warning else [])]
    _done(as_json, lines, acknowledgement=leaf_of(envelope), warning=warning)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(0), help="At most so many claims.")
@_common(out=True, now=False)
def export(bundle: Path, limit: int, out: Path, as_json: bool, force: bool) -> None:
    """Write a BUNDLE's patched model, and its claims as VNN-LIB questions with their networks."""
    from owner.hand_out import hand_out

    done = hand_out(bundle, out=out, limit=limit, force=force)
    lines = [f"{out}: patched.onnx, and {done.questions} claims as questions (instances.csv)"]
    if done.without:
        lines.append(f"{done.without} claims have no form as a question; questions.json says why")
    if done.left_out:
        lines.append(f"{done.left_out} more claims were left out; see --limit")
    _done(as_json, lines, questions=done.questions, without=done.without, left_out=done.left_out)


@main.command()
@click.argument("log", type=FOLDER)
@click.option("--policy", required=True, type=FILE, help="Witnesses and their addresses (C2SP tlog-policy).")
@_common(now=False)
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
    _done(as_json, lines, **facts)
    if complaint is not None:
        raise complaint


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("--log", required=True, type=FOLDER, help="The owner's log.")
@_common(now=False)
def publish(folder: Path, log: Path, as_json: bool) -> None:
    """Bring the log proofs of a bundle, answer or commitment FOLDER to the log's current, cosigned checkpoint."""
    from owner.certify import refresh_proofs

    changed = refresh_proofs(folder, log)
    _done(as_json, [f"{folder}: {changed} proofs brought up to date"], changed=changed)


if __name__ == "__main__":
    main()
