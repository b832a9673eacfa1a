"""What each kind of gate and head buys, and what it tells: the frontier of gates.

    python -m tests.benchmarks.gates_study [--data ../shared/data] [--set mnist] [--records 50] [--train 20000]

Both programs' own code: `commit`, `unlearn` for each gate and head, the auditor's checks on the signed bundle. For each:
records with a proven region and its radius; share of noisy (2 % of the range) and shifted (one pixel) versions of a
record that are still redirected; error of the best rebuilding of a record from the patch (A7) relative to guessing
the mean of its class; re-identification: of up to 10,000 candidates (the records, data never seen, retained records),
how many of the records' outputs the patch moves, and how many of the others'; bytes a record; size of what is added, and
how near to the least it is proven to be; processor time to find and to check. Beside them the exact-match deny-list and the
linear region around each record, as the report has them. Without `--data` the digits of scikit-learn.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from auditor.checks import boundedness, disclosure, locality, redirection
from auditor.evidence import Evidence, moved
from auditor.frontier import frontier, measure
from protocol.claims import Redirection
from tests.benchmarks.redirection_study import Data, Study, load, table

WAYS = (
    ("sketch", "set", "match"), ("sketch", "set", "misclassify"), ("sketch", "shift", "match"),
    ("sketch", "shift", "misclassify"), ("sketch", "affine", "misclassify"), ("feature", "set", "match"),
    ("feature", "shift", "misclassify"), ("linear-region", "set", "match"),
    ("linear-region", "affine", "misclassify"), ("sketch+feature", "set", "match"),
)  # fmt: skip
CANDIDATES = 10_000
HEADER = [
    "gate", "head", "target", "proven", "radius min / median / max", "noise", "shifts", "rebuilt / guessing",
    "records moved", "others moved", "bytes a record", "over the least", "find (s)", "check (s)",
    "redirection", "locality of reference",
]  # fmt: skip


def percent(value: float | None) -> str:
    """A share, or nothing."""
    return "" if value is None else f"{value:.1%}"


def picked(evidence: Evidence, study: Study, random: np.random.Generator) -> tuple[str, str]:
    """Running the patch on candidates: how many of the records it gives away, and of the others."""
    from owner.data import to_grid

    assert evidence.case.schema is not None
    assert evidence.reference is not None
    values = np.array([opened.values for opened in evidence.opened_by_commitment.values()], np.int64)
    retained = to_grid(evidence.case.schema, study.data.X)[0].astype(np.int64)
    own = {row.tobytes() for row in np.ascontiguousarray(values)}
    retained = retained[[row.tobytes() not in own for row in np.ascontiguousarray(retained)]]
    others = np.concatenate([evidence.reference.values.astype(np.int64), random.permutation(retained)])
    others = others[: CANDIDATES - len(values)]
    hits = [int(moved(*evidence.run(points)).sum()) for points in (values, others)]
    return f"{hits[0]} of {len(values)}", f"{hits[1]} of {len(others)}"


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
    if claims:
        point = measure(evidence)
        noise, shifts = point.noise, point.augmented
    least = found.evidence.get("least_change_of_logits", {})
    moved_reference = locality.check(evidence).evidence.get("reference", {})
    return [
        gate, head, target, f"{found.evidence.get('proven', 0)} of {count}",
        f"{radius.min()} / {np.median(radius):g} / {radius.max()}" if radius.size else "none",
        percent(noise), percent(shifts), "" if shown is None else f"{shown:.3f}",
        *picked(evidence, study, np.random.default_rng(0)), f"{evidence.case.patch_bytes / count:,.0f}",
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
    options = parser.parse_args()
    data = load(options.set if options.data is not None else "digits", options.data)
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.y))[: options.train])
    data = Data(
        data.name, data.X[chosen], data.y[chosen], data.X_test, data.y_test, kind=data.kind, scale=data.scale,
        schema=data.schema, hidden=(64, 32),
    )  # fmt: skip
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), data, epochs=options.epochs, folds=2, fold_epochs=options.epochs, reference=9_500)
        for number, way in enumerate(WAYS):
            try:
                cells, evidence = line(study, options.records, *way)
            except AssertionError as error:
                print(f"# {way}: {error}", flush=True)
                continue
            if number == 0:
                for point in frontier(evidence, None)[1:]:
                    rows.append([
                        point.name, "", "", "", f"{point.radius:.3g}", percent(point.noise), percent(point.augmented),
                        "" if point.rebuilt is None else f"{point.rebuilt:.3f}", percent(point.identified), "",
                        f"{point.bytes_per_record:,.0f}", *[""] * 5,
                    ])  # fmt: skip
            rows.append(cells)
            print(" | ".join(cells), flush=True)
    print("\n".join(table(HEADER, rows)))
    print(
        f"{data.name}, {len(data.y)} training records, perceptron {data.hidden}. Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, {torch.get_num_threads()} threads."
    )


if __name__ == "__main__":
    main()
