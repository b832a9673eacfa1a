"""How large are certified regions, what do they cost to find and to check, and what does a patch show of a record?

    python -m tests.benchmarks.redirection_study [--data ../shared/data] [--sets mnist,adult] [--many] [--retrain]

Both programs' own code: `commit`, `unlearn` and the auditor's `redirection` check on the signed bundle. For each data
set: certified radii of records drawn at random, retained records inside any support (counted by running the gate's
own comparison over all of them), time to find, time to check (proof alone, and the whole check with its replays), time
of the conflict test (all of it processor time, which other work on the machine does not change much), and what the patch tells: rebuilding against class-mean guessing, re-identification among
candidates, noise and augmentation coverage, bytes. Without `--data` the digits of scikit-learn.
"""

import argparse
import platform
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from auditor import case, flips, parts_proof
from auditor.checks import disclosure, redirection
from auditor.conflicts import first_meeting
from auditor.cores import Cores
from auditor.evidence import Evidence, load_reference
from auditor.frontier import measure
from auditor.profile import load_profile
from auditor.transcript import Transcript
from owner.architectures import mlp, small_conv
from owner.training import train
from protocol import trust as trust_file
from protocol.log import policy as policy_file
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.parts import SketchGate
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.demo.data import digits
from tests.demo.world import Clock, World, must

START = 1_780_000_000
REFERENCE = 4000
UNSEEN = 500


@dataclass
class Data:
    """A data set as a data file has it, and the architecture of its base."""

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    kind: str = "mlp"
    scale: float | np.ndarray = 255.0
    schema: InputSchema | None = None
    hidden: tuple[int, ...] = (128, 64)
    extra: tuple[object, ...] = field(default_factory=tuple)

    @property
    def inputs(self) -> np.ndarray:
        """What the base is trained on."""
        X = np.moveaxis(self.X, 3, 1) if self.kind == "conv" and self.X.ndim == 4 else self.X
        if self.schema is not None:
            return self.schema.dequantise(self.X)
        return (X / self.scale).astype(np.float32) if X.dtype.kind != "f" else X.astype(np.float32)


def _adult(archive: object) -> Data:
    """Adult without the survey weight: five numeric columns in steps, eight categorical ones one-hot."""
    columns, categorical = [str(c) for c in archive["columns"]], archive["categorical"]  # type: ignore[index]
    kinds, groups, scales, highs, makers = [], [], [], [], []
    for place, name in enumerate(columns):
        if name == "fnlwgt":
            continue
        both = np.concatenate([archive["X_train"][:, place], archive["X_test"][:, place]])  # type: ignore[index]
        is_code = name in [str(c) for c in categorical] if categorical.dtype.kind in "US" else bool(categorical[place])
        if is_code:
            size = int(both.max()) + 1
            group = len([g for g in makers if g[1]])
            makers.append((place, size))
            kinds += ["onehot"] * size
            groups += [group] * size
            scales += [1.0] * size
            highs += [1] * size
        else:
            unit = 100 if both.max() > 2000 else 1
            makers.append((place, 0))
            kinds.append("grid")
            groups.append(-1)
            highs.append(int(both.max()) // unit)
            scales.append(float(highs[-1]))

    def encode(X: np.ndarray) -> np.ndarray:
        parts = []
        for place, size in makers:
            column = X[:, place]
            unit = 100 if not size and column.max() > 2000 else 1
            parts.append(np.eye(size, dtype=np.int32)[column] if size else (column // unit)[:, None].astype(np.int32))
        return np.concatenate(parts, axis=1)

    X, X_test = encode(archive["X_train"]), encode(archive["X_test"])  # type: ignore[index]
    schema = InputSchema.from_columns(
        (X.shape[1],), scale=np.array(scales), offset=np.zeros(len(scales)), low=np.zeros(len(scales), int),
        high=np.array(highs), kind=tuple(kinds), group=np.array(groups),
    )  # fmt: skip
    y, y_test = archive["y_train"].astype(np.int64), archive["y_test"].astype(np.int64)  # type: ignore[index]
    return Data("adult", X, y, np.clip(X_test, schema.low, schema.high), y_test, schema=schema)


def load(name: str, folder: Path | None) -> Data:
    """A data set of the data folder, or the digits."""
    if folder is None:
        parts = digits()
        return Data("digits", parts.X_train, parts.y_train, parts.X_reference, parts.y_reference, scale=16.0)
    with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        if name == "adult":
            return _adult(archive)
        X, X_test = archive["X_train"], archive["X_test"]
        y, y_test = archive["y_train"].astype(np.int64), archive["y_test"].astype(np.int64)
    kind = "conv" if name.startswith("cifar10") else "mlp"
    hidden = (256, 256, 256) if name == "mnist" else (128, 64)
    return Data(name, X, y, X_test, y_test, kind=kind, scale=1.0 if name == "location30" else 255.0, hidden=hidden)


class Study:
    """A commitment over one data set, and bundles made from it."""

    def __init__(
        self, root: Path, data: Data, *, epochs: int, folds: int, batch: int = 64, fold_epochs: int = 1,
        reference: int = REFERENCE,
    ) -> None:  # fmt: skip
        self.world, self.data, self.root = World(root=root, clock=Clock(START)), data, root
        self.world.build()
        inputs = data.inputs
        classes = int(max(data.y.max(), data.y_test.max())) + 1
        shape = inputs.shape[1:]
        graph = (
            small_conv(shape, classes=classes)
            if data.kind == "conv"
            else mlp(int(np.prod(shape)), data.hidden, classes=classes)
        )
        inputs = inputs if data.kind == "conv" else inputs.reshape(len(inputs), -1)
        recipe = Recipe(epochs=epochs, batch=batch)
        started = time.process_time()
        trained = train(
            graph, inputs, data.y, members=[np.arange(len(data.y))], recipe=recipe, rng=np.random.default_rng(0)
        )
        self.training = time.process_time() - started
        (root / "base.onnx").write_bytes(profile.serialise(trained.model(0)))
        # The fold models need not be good for any of what this study measures: one epoch, unless somebody asks for more.
        (root / "recipe.json").write_bytes(recipe_file.serialise(Recipe(epochs=fold_epochs, batch=batch)))
        order = np.random.default_rng(5).permutation(len(data.y_test))
        unseen, known = order[:UNSEEN], order[UNSEEN : UNSEEN + reference]
        self.graph, self.recipe = graph, Recipe(epochs=epochs, batch=batch)
        np.savez(
            root / "train.npz", X_train=data.X, y_train=data.y, X_test=data.X_test[unseen], y_test=data.y_test[unseen]
        )
        np.savez(root / "ref.npz", X=data.X_test[known], y=data.y_test[known])
        options: list[object] = []
        if data.schema is not None:
            (root / "schema.json").write_bytes(data.schema.to_bytes())
            options += ["--schema", root / "schema.json"]
        self.folds = folds
        options += ["--folds", folds] if folds else ["--no-prepare"]
        started = time.process_time()
        self._owner(
            "commit", "--model", root / "base.onnx", "--data", root / "train.npz", "--recipe", root / "recipe.json",
            *options, "--out", root / "commitment",
        )  # fmt: skip
        self.committing = time.process_time() - started

    def _owner(self, command: str, *arguments: object) -> None:
        must(
            "prune-owner", command, *arguments, "--key", self.world.key("owner"), "--log", self.world.owner_log,
            "--now", self.world.clock.tick(),
        )  # fmt: skip

    def unlearn(self, count: int, *options: object, seed: int = 0) -> tuple[Path, float]:
        """A bundle for some records drawn at random, and the seconds that `unlearn` took."""
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.data.y))[:count])
        place = self.root / f"run-{count}-{seed}-{abs(hash(options)) % 10**6}"
        place.mkdir()
        self._owner(
            "request", "--commitment", self.root / "commitment", "--records", ",".join(map(str, rows)), "--out",
            place / "request.json",
        )  # fmt: skip
        started = time.process_time()
        self._owner(
            "unlearn", "--commitment", self.root / "commitment", "--request", place / "request.json", "--out",
            place / "bundle", "--beside", *options,
        )  # fmt: skip
        return place / "bundle", time.process_time() - started

    def evidence(self, bundle: Path) -> Evidence:
        """What the auditor's checks look at."""
        self.world.witness(self.world.owner_log)
        must("prune-owner", "publish", bundle, "--log", self.world.owner_log)
        loaded = case.load(
            bundle,
            policy=policy_file.parse(self.world.policy.read_bytes()),
            trust=trust_file.parse(self.world.trust.read_bytes()),
            own_proofs={},
        )
        assert loaded.schema is not None
        assert loaded.base is not None
        return Evidence(
            case=loaded, profile=load_profile("redirection"), transcript=Transcript(),
            reference=load_reference(self.root / "ref.npz", loaded.schema, loaded.base.classes), reference_missing="",
            seed=1, shadow_cache=None, progress=lambda _stage, _share: None,
        )  # fmt: skip


def supports_hold(evidence: Evidence, study: Study) -> tuple[int, int]:
    """Retained records on which any item fires, and how many of these equal a forgotten one. Exact integers."""
    patch, schema = evidence.case.patch, evidence.case.schema
    assert patch is not None
    assert schema is not None
    from owner.data import to_grid

    values = to_grid(schema, study.data.X)[0].astype(np.int64)
    known = {row.tobytes() for row in np.ascontiguousarray(evidence.claimed_records[0], dtype=np.int64)}
    forgotten = np.array([row.tobytes() in known for row in np.ascontiguousarray(values)])
    claimed = len(evidence.claimed_records[0])
    hit = np.zeros(len(values), dtype=bool)
    for part in patch.parts:
        assert isinstance(part.gate, SketchGate)
        points = np.rint(values.astype(np.float64) @ part.gate.matrix.T.astype(np.float64)).astype(np.int64)
        for low, high in zip(part.gate.low.astype(np.int64), part.gate.high.astype(np.int64), strict=True):
            hit |= ((points >= low) & (points <= high)).all(axis=1)
    stray = int((hit & ~forgotten).sum())
    return stray, int(forgotten.sum()) - claimed


def line(study: Study, count: int, *options: object) -> list[str]:
    """One bundle: find, check, measure; returns cells."""
    bundle, finding = study.unlearn(count, *options)
    evidence = study.evidence(bundle)
    values, _, claims = evidence.claimed_records
    case_, patch = evidence.case, evidence.case.patch
    assert patch is not None
    assert case_.schema is not None
    assert case_.base is not None
    started = time.process_time()
    reach = flips.Reach.of(case_.schema, tuple(claim.region for claim in claims))
    cores = Cores(schema=case_.schema, centre=values, steps=reach.steps, flips=reach.flips)
    item = np.array([patch.place(claim.item).item for claim in claims])
    gate = patch.parts[0].gate
    assert isinstance(gate, SketchGate)
    proof = cores.proof(gate, item)
    proving = time.process_time() - started
    started = time.process_time()
    numbers = parts_proof.output_numbers(patch)[0]
    conflicts = first_meeting(
        gate.low, gate.high, numbers, hull_low=proof.hull_low, hull_high=proof.hull_high, own=numbers[item], before=item
    )
    conflicting = time.process_time() - started
    assert evidence.others  # computed here: what locality looks at, too
    started = time.process_time()
    result = redirection.check(evidence)
    checking = time.process_time() - started
    assert proof.proven.all(), "a claim of our own is not proven"
    assert (conflicts < 0).all(), "a conflict in our own patch"
    unit = "flips" if flips.categorical(case_.schema) else "steps"
    radius = np.array(
        [c.region.steps if c.region.norm == "hamming" and unit == "steps" else c.region.radius for c in claims]
    )
    twins = np.array([claim.twins > 0 for claim in claims])
    alone = radius[~twins]
    stray, _ = supports_hold(evidence, study)
    point = measure(evidence)
    shown = disclosure.check(evidence)
    print(f"# {study.data.name} {count} {options}: {result.verdict} {result.summary}", flush=True)
    return [
        study.data.name, f"{count}", " ".join(map(str, options)) or "match", f"{len(gate.matrix)}",
        f"{patch.items}", f"{radius.min()} / {np.median(radius):g} / {radius.max()} {unit}",
        f"{(radius >= 8).mean():.1%}", f"{int(twins.sum())} ({alone.min() if alone.size else 0})", f"{stray}",
        f"{finding:.1f}", f"{proving:.2f} + {conflicting:.2f}", f"{checking:.1f}", result.verdict,
        f"{shown.evidence.get('ratio', float('nan')):.3f}",
        *("" if v is None else f"{v:.1%}" for v in (point.noise, point.augmented, point.identified)),
        f"{point.bytes_per_record:.0f}",
    ]  # fmt: skip


HEADER = [
    "data", "records", "target", "integers", "items", "radius min / median / max", ">= 8", "twins (least of others)",
    "retained in a support", "find (s)", "prove + conflicts (s)", "whole check (s)", "verdict", "rebuilt / guessing",
    "noise covered", "shifts covered", "re-identified", "bytes a record",
]  # fmt: skip


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the data folder; digits without it")
    parser.add_argument("--sets", default="mnist,fashion_mnist,uci_har,location30,adult,cifar10_lossless_4k")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--many", action="store_true", help="10,000 records of the first set, too")
    parser.add_argument("--retrain", action="store_true", help="20 epochs of training against unlearning")
    parser.add_argument("--targets", default="match,misclassify")
    options = parser.parse_args()
    names = options.sets.split(",") if options.data is not None else ["digits"]
    rows = []
    for name in names:
        data = load(name, options.data)
        count = min(options.records, len(data.y) // 4)
        with tempfile.TemporaryDirectory() as folder:
            epochs = 20 if options.retrain else 2
            study = Study(Path(folder), data, epochs=epochs, folds=2)
            print(
                f"# {name}: training {epochs} epochs {study.training:.1f} s, commit {study.committing:.1f} s",
                flush=True,
            )
            for target in options.targets.split(","):
                rows.append(line(study, count, "--target", target))
                print("\n".join(table(HEADER, rows)), flush=True)
            if options.many and name == names[0]:
                rows.append(line(study, min(10_000, len(data.y) // 4), "--target", options.targets.split(",")[0]))
            if options.retrain:
                _, seconds = study.unlearn(count, "--target", "match", "--force")
                print(
                    f"{name}: 20 epochs {study.training:.1f} s, unlearning {count}: {seconds:.2f} s, "
                    f"{study.training / seconds:.0f} times; {study.folds} fold models of one epoch and the commitment "
                    f"took {study.committing:.1f} s before any request",
                    flush=True,
                )
    print("\n".join(table(HEADER, rows)))
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads."
    )


if __name__ == "__main__":
    main()
