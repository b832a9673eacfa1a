"""What is fixed before any request, and what a subject keeps of it."""

from pathlib import Path

import click

from owner.cli.program import DEVICE, KEY, LOG, RESUME, SEED, progress, statement_key, wanted
from protocol.device import Device
from protocol.program import FILE, FOLDER, FORCE, JSON, NOW, OUT, clock, done, with_options


@click.command()
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
@with_options(DEVICE, KEY, LOG, OUT, FORCE, SEED, RESUME, NOW, JSON)
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
        key=statement_key(key),
        log=log,
        out=out,
        now=clock(now),
        seed=seed,
        force=force,
        resume=resume,
        previous=previous,
        device=device,
    )
    with progress() as show:
        commitment, notes = command.commit(options, progress=show)
    done(as_json, notes, records=commitment.record_count, base=commitment.base, root=commitment.records_root.hex())


@click.command()
@click.option("--commitment", required=True, type=FOLDER, help="The commitment folder.")
@click.option("--subject", help="The subject whose records to open.")
@click.option("--records", help="Row numbers of the data file, from 0, separated by commas.")
@with_options(OUT, FORCE, JSON)
def slip(commitment: Path, subject: str | None, records: str | None, out: Path, as_json: bool, force: bool) -> None:
    """Write what a subject keeps: own records, salts, and proof that they are committed."""
    from owner.requests import make_slip
    from owner.workspace import Workspace

    count = make_slip(Workspace(folder=commitment), wanted(records, subject, None, None), out=out, force=force)
    lines = [
        f"{out}: {count} records; give it to the subject and to nobody else",
        f"with it the subject asks: prune-auditor request --slip {out.name} --key KEY --log LOG --out request.json",
    ]
    done(as_json, lines, slip=str(out), records=count)
