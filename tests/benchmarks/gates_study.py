"""What each kind of gate and head buys, and what it tells: the frontier of gates.

    python -m tests.benchmarks.gates_study [--data ../shared/data] [--set mnist] [--records 1000] [--train 20000]
        [--hidden 32 16] [--state gates.jsonl] [--only sketch/set/match]

Both programs' own code: `commit`, `unlearn` for each gate and head, the auditor's checks on the signed bundle. For each:
records with a proven region and its radius; share of noisy (2 % of the range) and shifted (one pixel) versions of a
record that are still redirected; error of the best rebuilding of a record from the patch (A7) relative to guessing
the mean of its class; re-identification among up to 10,000 candidates (the records, and as many never seen as retained ones):
by running the patch, how many of the records' outputs it moves, and how many of the others'; from the patch file alone
(of a feature box with the base beside it), for how many records no other candidate is as near to the middle of the
record's item, with the median rank (a linear region's middle: as far from its faces as can be); bytes a record; size of what is added, and
how near to the least it is proven to be; processor time to find and to check. Beside them the exact-match deny-list and the
linear region around each record, as the report has them. Without `--data` the digits of scikit-learn.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from auditor.checks import boundedness, disclosure, locality, redirection
from auditor.evidence import Evidence, moved
from auditor.execute import Program
from auditor.frontier import frontier, noisy, shifted
from protocol.claims import Redirection
from protocol.model.parts import AlwaysGate, FeatureGate, Gate, SketchGate
from tests.benchmarks.redirection_study import Data, Study, load, table

WAYS = (
    ("sketch", "set", "match"), ("sketch", "set", "misclassify"), ("sketch", "shift", "match"),
    ("sketch", "shift", "misclassify"), ("sketch", "affine", "misclassify"), ("feature", "set", "match"),
    ("feature", "shift", "misclassify"), ("linear-region", "set", "match"),
    ("linear-region", "affine", "misclassify"), ("sketch+feature", "set", "match"), ("always", "shift", "relabel:0"),
)  # fmt: skip
CANDIDATES = 10_000
HEADER = [
    "gate", "head", "target", "proven", "radius min / median / max", "noise", "shifts", "rebuilt / guessing",
    "records moved", "others moved", "first by the file (median rank)", "bytes a record", "over the least", "find (s)", "check (s)",
    "redirection", "locality of reference",
]  # fmt: skip


def percent(value: float | None) -> str:
    """A share, or nothing."""
    return "" if value is None else f"{value:.1%}"


def candidates_of(evidence: Evidence, study: Study, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The records' grid values, and those of others: half never seen, half retained, as far as there are any."""
    from owner.data import to_grid

    assert evidence.case.schema is not None
    assert evidence.reference is not None
    values = np.array([opened.values for opened in evidence.opened_by_commitment.values()], np.int64)
    retained = to_grid(evidence.case.schema, study.data.X)[0].astype(np.int64)
    own = {row.tobytes() for row in np.ascontiguousarray(values)}
    retained = retained[[row.tobytes() not in own for row in np.ascontiguousarray(retained)]]
    left = CANDIDATES - len(values)
    unseen = random.permutation(evidence.reference.values.astype(np.int64))[: max(left // 2, left - len(retained))]
    return values, np.concatenate([unseen, random.permutation(retained)[: left - len(unseen)]])


def picked(evidence: Evidence, values: np.ndarray, others: np.ndarray) -> tuple[str, str]:
    """Running the patch on candidates: how many of the records it gives away, and of the others."""
    hits = [int(moved(*evidence.run(points)).sum()) for points in (values, others)]
    return f"{hits[0]} of {len(values)}", f"{hits[1]} of {len(others)}"


def caught(evidence: Evidence) -> tuple[float, float | None]:
    """Share of noisy versions of some records whose output the patch moves at all, and of shifted ones."""
    schema, values = evidence.case.schema, evidence.placed_records[0]
    assert schema is not None
    some = values[np.unique(np.linspace(0, len(values) - 1, min(200, len(values))).astype(np.int64))]
    rough = np.concatenate([noisy(schema, some, np.random.default_rng(place)) for place in range(4)])
    moved_away = shifted(schema, some)
    found = [None if points is None else float(moved(*evidence.run(points)).mean()) for points in (rough, moved_away)]
    assert found[0] is not None
    return found[0], found[1]


def nearness(evidence: Evidence, gate: Gate, points: np.ndarray, items: np.ndarray) -> np.ndarray:
    """How far each candidate is from the middle of each item, in the item's own measure `[item, candidate]`."""
    schema, base = evidence.case.schema, evidence.case.base
    assert schema is not None
    assert base is not None
    inputs = schema.dequantise(points)
    if isinstance(gate, SketchGate | FeatureGate):
        if isinstance(gate, SketchGate):
            values, slack = points.astype(np.float64) @ gate.matrix.T.astype(np.float64), 0.5
        else:
            (made,) = Program(base)(inputs, outputs=(gate.tensor,))
            values, slack = made.reshape(len(points), -1).astype(np.float64), 1e-9
        low, high = gate.low.astype(np.float64), gate.high.astype(np.float64)
        return np.array([
            np.abs((values - (low[k] + high[k]) / 2) / ((high[k] - low[k]) / 2 + slack)).max(axis=1) for k in items
        ])  # fmt: skip
    assert not isinstance(gate, AlwaysGate)
    flat = inputs.reshape(len(points), -1)
    size = np.maximum(np.linalg.norm(gate.weights, axis=2), 1e-30)
    return np.array([((flat @ gate.weights[k].T - gate.bounds[k]) / size[k]).max(axis=1) for k in items])


def by_the_file(evidence: Evidence, others: np.ndarray) -> str:
    """How many records are nearest to their own item of all candidates, strictly, and the median rank."""
    values, _, items, _ = evidence.placed_records
    patch = evidence.case.patch
    assert patch is not None
    _, once = np.unique(values, axis=0, return_index=True)
    values, items = values[once], items[once]
    points, ranks = np.concatenate([values, others]), []
    for row, item in enumerate(items.tolist()):
        place = patch.place(item)
        gate = patch.parts[place.part].gate
        if isinstance(gate, AlwaysGate):
            return "none to speak of"
        if row % 50 == 0:  # products of many at a time
            same = [patch.place(one) for one in items[row : row + 50].tolist()]
            found = {
                part: nearness(evidence, patch.parts[part].gate, points,
                               np.array([one.item for one in same if one.part == part]))
                for part in {one.part for one in same}
            }  # fmt: skip
            taken = dict.fromkeys(found, 0)
        own = found[place.part][taken[place.part]]
        taken[place.part] += 1
        ranks.append(int((own <= own[row]).sum()))
    first = int((np.array(ranks) == 1).sum())
    return f"{first} of {len(ranks)} ({np.median(ranks):g})" if ranks else "no item"


def line(study: Study, count: int, gate: str, head: str, target: str) -> tuple[list[str], Evidence]:
    """One bundle: find, check, measure; returns cells."""
    bundle, finding = study.unlearn(count, "--gate", gate, "--head", head, "--target", target)
    evidence = study.evidence(bundle)
    assert evidence.others
    started = time.process_time()
    found = redirection.check(evidence)
    checking = time.process_time() - started
    assert boundedness.check(evidence).verdict != "REFUTED", boundedness.check(evidence).summary
    claims = [claim for claim in evidence.case.claims or () if isinstance(claim, Redirection)]
    radius = np.array([claim.region.radius for claim in claims])
    shown = disclosure.check(evidence).evidence.get("ratio")
    noise = shifts = None
    if evidence.opened_by_commitment:
        noise, shifts = caught(evidence)
    least = found.evidence.get("least_change_of_logits", {})
    values, others = candidates_of(evidence, study, np.random.default_rng(0))
    moved_reference = locality.check(evidence).evidence.get("reference", {})
    return [
        gate, head, target, f"{found.evidence.get('proven', 0)} of {count}",
        f"{radius.min()} / {np.median(radius):g} / {radius.max()}" if radius.size else "none",
        percent(noise), percent(shifts), "" if shown is None else f"{shown:.3f}",
        *picked(evidence, values, others), by_the_file(evidence, others), f"{evidence.case.patch_bytes / count:,.0f}",
        f"{least['largest_entry_over_bound_median']:.2f} times (at most {least['largest_entry_over_bound_max']:.2f})"
        if least.get("with_a_bound") else "",
        f"{finding:.1f}", f"{checking:.1f}", found.verdict,
        f"{moved_reference.get('moved', '?')} of {moved_reference.get('records', '?')}",
    ], evidence  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the data folder; digits without it")
    parser.add_argument("--set", default="mnist")
    parser.add_argument("--records", type=int, default=50)
    parser.add_argument("--train", type=int, default=20_000, help="training records")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--only", type=lambda text: text.split(","), help="ways, such as sketch/set/match")
    parser.add_argument("--state", type=Path, help="finished rows, one of JSON on each line")
    options = parser.parse_args()
    data = load(options.set if options.data is not None else "digits", options.data)
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.y))[: options.train])
    data = Data(
        data.name, data.X[chosen], data.y[chosen], data.X_test, data.y_test, kind=data.kind, scale=data.scale,
        schema=data.schema, hidden=tuple(options.hidden),
    )  # fmt: skip
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), data, epochs=options.epochs, folds=2, fold_epochs=options.epochs, reference=9_500)
        wanted = [way for way in WAYS if not options.only or "/".join(way) in options.only]
        for number, way in enumerate(wanted):
            try:
                cells, evidence = line(study, options.records, *way)
            except (AssertionError, SystemExit) as error:
                # The owner signs nothing where retained records would be redirected, as a gate that always fires does.
                print(f"# {way}: nothing was signed ({error})", flush=True)
                continue
            if number == 0:
                for point in frontier(evidence, None)[1:]:
                    rows.append([
                        point.name, "", "", "", f"{point.radius:.3g}", percent(point.noise), percent(point.augmented),
                        "" if point.rebuilt is None else f"{point.rebuilt:.3f}", percent(point.identified), "", "",
                        f"{point.bytes_per_record:,.0f}", *[""] * 5,
                    ])  # fmt: skip
            rows.append(cells)
            if options.state is not None:
                with options.state.open("a") as file:
                    file.write(json.dumps(rows[-1] if number else rows) + "\n")
            print(" | ".join(cells), flush=True)
    print("\n".join(table(HEADER, rows)))
    print(
        f"{data.name}, {len(data.y)} training records, perceptron {data.hidden}. Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, {torch.get_num_threads()} threads."
    )


if __name__ == "__main__":
    main()
