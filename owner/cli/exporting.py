"""What other people's runtimes and verifiers read."""

from pathlib import Path

import click

from protocol.program import FOLDER, FORCE, JSON, OUT, done, with_options


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(0), help="At most so many claims.")
@with_options(OUT, FORCE, JSON)
def export(bundle: Path, limit: int, out: Path, as_json: bool, force: bool) -> None:
    """Write a BUNDLE's patched model, and its claims as VNN-LIB questions with their networks."""
    from owner.hand_out import hand_out

    made = hand_out(bundle, out=out, limit=limit, force=force)
    lines = [f"{out}: patched.onnx, and {made.questions} claims as questions (instances.csv)"]
    if made.without:
        lines.append(f"{made.without} claims have no form as a question; questions.json says why")
    if made.left_out:
        lines.append(f"{made.left_out} more claims were left out; see --limit")
    done(as_json, lines, questions=made.questions, without=made.without, left_out=made.left_out)
