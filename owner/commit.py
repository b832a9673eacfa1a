"""Commit: fix base model, input grid, recipe and training records in the log, before any request.

Also trains the cross-fitted models that the target `match` needs, so that answering a request later
trains nothing. The folder grows beside its place and takes its name when the commitment is logged;
outputs of cross-fitted models are kept group by group, so that an interrupted run resumes and ends
with the very bytes of an uninterrupted one.
"""

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from owner.data import Dataset, infer_schema, load_dataset, to_grid
from owner.execute import Program
from owner.files import begin_folder, check_free_folder, finish_folder, partial_folder, read_file, write_atomic
from owner.journal import append, check_log, find, leaf_of, sign
from owner.methods.job import Progress
from owner.training import train
from owner.workspace import Prepared, PrivateRecords, public_manifest
from protocol import messages, records
from protocol.arrays import Expected, read_npz, write_npz
from protocol.device import Device
from protocol.digests import sha256_hex, tagged
from protocol.errors import MalformedError, OwnerError
from protocol.keys import SigningKey
from protocol.messages.commitment import Commitment
from protocol.model import profile, recipe, schema
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema

_FOLD = {
    "task": Expected(kinds=("|u1",), dimensions=1),
    "rows": Expected(kinds=("<i8",), dimensions=1),
    "logits": Expected(kinds=("<f4",), dimensions=2),
    "unseen_logits": Expected(kinds=("<f4",), dimensions=2),
}
_TOGETHER = 1 << 25  # parameters trained at once; more would not be faster on a CPU
_WORK = 2e11  # multiplications between two savings, so that an interrupted run loses minutes, not hours
_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to commit.

    Args:
        model: the base model's file.
        data: the data file (SPEC 8.4).
        schema: an input schema file, or None to infer one.
        recipe: a recipe file, or None for the default recipe.
        folds: cross-fitted models to prepare; 0 prepares none, and `match` cannot be had.
        key: the owner's statement key.
        log: the owner's log.
        out: the commitment folder.
        now: seconds since 1970.
        seed: of cross-fitting.
        previous: an earlier commitment folder whose secret to keep, so that records keep their commitments and a
            monitor can see one return; None makes a new secret.
        force: replace `out` once the new commitment is complete. Its commitment secret is kept, so that
            records with the same ids have the same salts and a monitor can see them return.
        resume: go on where an interrupted run stopped.
        device: where cross-fitted models are trained.
    """

    model: Path
    data: Path
    schema: Path | None
    recipe: Path | None
    folds: int
    key: SigningKey
    log: Path
    out: Path
    now: int
    seed: int
    force: bool
    resume: bool
    previous: Path | None = None
    device: Device = "cpu"


def logits_of(
    program: Program, grid: InputSchema, values: Int[np.ndarray, "record feature"]
) -> Float32[np.ndarray, "record class"]:
    """A model's outputs on canonical records, a part at a time: `dequantise` works in float64."""
    parts = [
        program(grid.dequantise(values[start : start + _CHUNK])) for start in range(0, max(1, len(values)), _CHUNK)
    ]
    return np.concatenate(parts)


def _group_size(graph: Graph, how: Recipe, total: int) -> int:
    # A convolution's weights are used at every pixel, a matrix's once.
    pixels = int(np.prod(graph.input_shape[1:])) if len(graph.input_shape) == 3 else 1
    sizes = [(int(a.size), a.ndim) for a in graph.initialisers.values() if a.dtype == np.float32]
    work = sum(size * (pixels if axes == 4 else 1) for size, axes in sizes) * total * how.epochs
    return max(1, min(_TOGETHER // max(1, sum(size for size, _ in sizes)), int(_WORK / max(1, work))))


def _stored(path: Path, task: bytes, rows: np.ndarray) -> dict[str, np.ndarray] | None:
    # A finished fold, if it is this very task's: another data file or seed must not slip in.
    if not path.is_file():
        return None
    try:
        stored = read_npz(read_file(path), _FOLD, limit=4 << 30, where=str(path))
    except MalformedError:
        return None
    return stored if stored["task"].tobytes() == task and np.array_equal(stored["rows"], rows) else None


def cross_fit(
    graph: Graph,
    grid: InputSchema,
    own: PrivateRecords,
    how: Recipe,
    *,
    folds: int,
    seed: int,
    task: bytes,
    keep: Path,
    progress: Progress,
    device: Device = "cpu",
) -> Prepared:
    """Outputs for every record of a model that was trained without it.

    Args:
        graph: the base model, for its architecture.
        grid: the input schema.
        own: the committed records.
        how: the recipe.
        folds: number of models, at least 2.
        seed: of folds, initial values and orders.
        task: 32 bytes that stand for everything above; finished folds of another task are not used.
        keep: folder for finished folds.
        progress: called with the share done.
        device: where to train.

    Raises:
        OwnerError: fewer records than folds, there is no such device, or training diverged.
    """
    total = len(own.labels)
    if folds < 2 or total < folds:
        raise OwnerError(
            f"{folds} cross-fitted models need at least as many records, there are {total}; "
            "give a smaller --folds (at least 2), or --no-prepare"
        )
    fold = np.random.default_rng([seed, 0]).permutation(np.arange(total) % folds)
    inputs, unseen = grid.dequantise(own.values), grid.dequantise(own.unseen_values)
    logits = np.zeros((total, graph.classes), dtype=np.float32)
    unseen_logits = np.zeros((folds, len(unseen), graph.classes), dtype=np.float32)
    together = min(folds, _group_size(graph, how, total))
    for start in range(0, folds, together):
        numbers = list(range(start, min(folds, start + together)))
        rows = {number: np.flatnonzero(fold == number) for number in numbers}
        paths = {number: keep / f"fold-{number}.npz" for number in numbers}
        parts = {number: _stored(paths[number], task, rows[number]) for number in numbers}
        # A group shares its random numbers: it is trained as a whole or not at all.
        if any(part is None for part in parts.values()):
            trained = train(
                graph,
                inputs,
                own.labels,
                members=[np.flatnonzero(fold != number) for number in numbers],
                recipe=how,
                rng=np.random.default_rng([seed, 1, *numbers]),
                device=device,
                progress=lambda done, epochs, first=start, last=numbers[-1] + 1: progress(  # type: ignore[misc]
                    "cross-fitted models", (first + (last - first) * done / epochs) / folds
                ),
            )
            for place, number in enumerate(numbers):
                model = Program(trained.model(place))
                part: dict[str, np.ndarray] = {
                    "task": np.frombuffer(task, dtype=np.uint8),
                    "rows": rows[number],
                    "logits": model(inputs[rows[number]]),
                    "unseen_logits": model(unseen),
                }
                write_atomic(paths[number], write_npz(part), secret=True)
                parts[number] = part
        for number, done in parts.items():
            assert done is not None
            logits[rows[number]], unseen_logits[number] = done["logits"], done["unseen_logits"]
    return Prepared(logits=logits, fold=fold.astype(np.int64), unseen_logits=unseen_logits)


def _salts(secret: bytes, identifiers: tuple[str, ...]) -> np.ndarray:
    joined = b"".join(records.derive_salt(secret, "record-salt", identifier) for identifier in identifiers)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(identifiers), 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    # What was read before anything is written.
    model: bytes
    base: Graph
    data: Dataset
    grid: InputSchema
    recipe: Recipe


def _load(options: Options) -> _Inputs:
    model = read_file(options.model)
    try:
        base = profile.parse(model)
    except MalformedError as error:
        raise error.at(str(options.model)) from None
    if b"ReduceMean" in model:
        # Read as GlobalAveragePool (SPEC 7.5), whose sum a runtime may round otherwise: the profile's own form is what
        # is committed, so that base and patched file are the same nodes and give the same bits.
        model = profile.serialise(base)
    how, grid = Recipe(), None
    if options.recipe is not None:
        how = recipe.parse(read_file(options.recipe, limit=4096), where=str(options.recipe))
    if options.schema is not None:
        grid = schema.parse(read_file(options.schema, limit=schema.MAX_BYTES), where=str(options.schema))
    data = load_dataset(options.data)
    for name, labels in (("y_train", data.labels), ("y_test", data.unseen_labels)):
        if labels.max(initial=0) >= base.classes:
            raise OwnerError(
                f"{name} has class {labels.max()}; the model has {base.classes} classes, numbered from 0",
                where=str(options.data),
            )
    source = str(options.schema or options.data)
    try:
        if grid is None:
            grid = infer_schema(base, data.values, data.labels, Program(base))
        grid.check()
    except (MalformedError, OwnerError) as error:
        raise error.at(source) from None
    if grid.shape != base.input_shape:
        raise OwnerError(f"the input schema is for {grid.shape}, the model reads {base.input_shape}", where=source)
    return _Inputs(model=model, base=base, data=data, grid=grid, recipe=how)


def _canonical(given: _Inputs, options: Options) -> tuple[np.ndarray, np.ndarray]:
    try:
        values, inside = to_grid(given.grid, given.data.values)
        unseen, _ = to_grid(given.grid, given.data.unseen_values)
    except MalformedError as error:
        raise error.at(str(options.data)) from None
    if not inside.all():
        raise OwnerError(
            f"{int((~inside).sum())} training records lie outside the schema's ranges, record "
            f"{int(np.flatnonzero(~inside)[0])} first; no gate can act there, so widen the schema",
            where=str(options.data),
        )
    return values, unseen


def _secret(private: Path, previous: Path) -> bytes:
    place = private / "secret.bin"
    if not place.is_file():
        kept = previous / "private" / "secret.bin"
        write_atomic(place, read_file(kept, limit=32) if kept.is_file() else secrets.token_bytes(32), secret=True)
    secret = read_file(place, limit=32)
    if len(secret) != 32:
        raise OwnerError("is damaged: a commitment secret has 32 bytes", where=str(place))
    return secret


def _interrupted(partial: Path, log: Path) -> Commitment | None:
    """What an interrupted run had signed already; its time is used again, so that nothing is logged twice."""
    path = partial / "commitment.dsse.json"
    if not path.is_file():
        return None
    try:
        _, found = messages.read(read_file(path, limit=1 << 16), Commitment, where=str(path))
    except MalformedError:
        return None
    return found if find(log, read_file(path, limit=1 << 16)) is not None else None


def commit(options: Options, *, progress: Progress) -> tuple[Commitment, list[str]]:
    """Commit; returns the commitment and notes for whoever runs the program.

    Raises:
        MalformedError: model, data, schema or recipe is not what it should be.
        OwnerError: model and data do not go together, or something cannot be written.
    """
    notes: list[str] = []
    check_free_folder(options.out, force=options.force)
    check_log(options.log, options.key)
    logged = _interrupted(partial_folder(options.out), options.log)
    if logged is not None and not options.resume:
        raise OwnerError(
            "an interrupted run has logged its commitment already; finish it with --resume, or use another --out",
            where=str(options.out),
        )
    progress("reading", 0.0)
    given = _load(options)
    values, unseen = _canonical(given, options)
    grid, labels, data = given.grid, given.data.labels, given.data
    accuracy = float((logits_of(Program(given.base), grid, values).argmax(axis=1) == labels).mean())
    progress("reading", 1.0)
    notes.append(
        f"input grid: {grid.features} columns, scale {grid.scale.min():g} to {grid.scale.max():g}, "
        f"values {grid.low.min()} to {grid.high.max()}; base accuracy on the committed records {accuracy:.4f}"
    )
    if given.model != read_file(options.model):
        notes.append("base.onnx is the model in the profile's own form: GlobalAveragePool for ReduceMean")
    if set(grid.kind) <= {"binary", "onehot"}:
        notes.append(
            "warning: regions are counted in grid steps so far, and one step of a binary column is all of it: "
            "expect radius 0, which a profile that asks for persistence leaves INCONCLUSIVE"
        )
    if accuracy < 1.5 / given.base.classes:
        notes.append("warning: the base model is hardly better than chance on these records; is the input scale right?")

    out = begin_folder(options.out, resume=options.resume)
    private = out / "private"
    _make_private(private)
    secret = _secret(private, options.previous if options.previous is not None else options.out)
    progress("committing records", 0.0)
    own = PrivateRecords(
        values=values,
        labels=labels,
        salts=_salts(secret, data.identifiers),
        subjects=data.subjects,
        group_salts={
            subject: records.derive_salt(secret, "group-salt", subject) for subject in sorted({*data.subjects} - {""})
        },
        unseen_values=unseen,
        unseen_labels=data.unseen_labels,
    )
    own.write(private)
    tree = records.build(own.values, own.labels, own.subjects, own.salts, own.group_salts)
    progress("committing records", 1.0)
    how = recipe.serialise(given.recipe)
    prepared_digest: str | None = None
    if options.folds:
        counts = options.folds.to_bytes(8, "big") + options.seed.to_bytes(32, "big")
        unseen_bytes = unseen.tobytes() + data.unseen_labels.tobytes()
        elsewhere = [] if options.device == "cpu" else [options.device.encode()]
        prepared = cross_fit(
            given.base,
            grid,
            own,
            given.recipe,
            folds=options.folds,
            seed=options.seed,
            task=tagged("cross-fit", given.model, grid.to_bytes(), how, tree.root, unseen_bytes, counts, *elsewhere),
            keep=private / "folds",
            progress=progress,
            device=options.device,
        )
        content = prepared.to_bytes()
        write_atomic(private / "prepared.npz", content, secret=True)
        prepared_digest = sha256_hex(content)
    write_atomic(out / "base.onnx", given.model)
    write_atomic(out / "schema.json", grid.to_bytes())
    write_atomic(out / "recipe.json", how)
    listing = public_manifest(out)
    write_atomic(out / "manifest.json", listing.raw)
    digests = {entry.role: entry.sha256 for entry in listing.entries}
    commitment = Commitment(
        subject=sha256_hex(listing.raw),
        base=digests["base"],
        schema=digests["schema"],
        recipe=digests["recipe"],
        prepared=prepared_digest,
        records_root=tree.root,
        record_count=len(tree.commitments),
        group_count=len(tree.groups),
        committed_at=options.now,
    )
    if logged is not None:
        commitment = replace(commitment, committed_at=logged.committed_at)
        if commitment != logged:
            raise OwnerError(
                "the interrupted run has logged a commitment to other files; use another --out", where=str(options.out)
            )
    envelope = sign(commitment.payload(), options.key)
    # Written before it is logged: whatever happens next, the logged bytes are not lost.
    write_atomic(out / "commitment.dsse.json", envelope)
    proof = append(options.log, envelope, once=options.resume)
    write_atomic(out / "proofs" / "commitment.tlog-proof", proof)
    finish_folder(options.out)
    notes.append(f"committed {len(tree.commitments)} records in {len(tree.groups)} groups as {leaf_of(envelope)}")
    return commitment, notes


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise OwnerError(f"cannot be made: {error.strerror}", where=str(folder)) from None
