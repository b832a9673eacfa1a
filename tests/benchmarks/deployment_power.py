"""How often is a cheating endpoint caught? Simulated runs of the check's own drawing and judging, beside the formula.

    python -m tests.benchmarks.deployment_power [--runs 400] [--seed 1] [--out F]

Each run draws a budget of core probes over ten identities as the check does (whole rounds of a permutation), plays a
server that cheats, classifies the answers with the check's own code and asks whether a finding follows. The formula is
1 - (1 - rate)^n for cheats that are independent of each other; a server that cheats some identities is caught more
surely, as every identity is asked. Intervals are exact (Clopper-Pearson, 95 %). Honest servers are run as well, with
another order of summation and with answers missing: false alarms.
"""

import argparse
from pathlib import Path

import numpy as np

from auditor.checks.deployment import at_most
from auditor.deployment.compare import Outcome, classify
from auditor.statistics.proportions import interval, negatives_needed

RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
BUDGETS = (30, 59, 100, 149, 299, 598, 1497)
IDENTITIES = 10
CLASSES = 10


def outcome(rng: np.random.Generator, *, cheated: bool) -> Outcome:
    """What the check makes of one answer of a server in another runtime (rows exact, the base off by rounding)."""
    certified = rng.normal(0, 4, CLASSES).astype(np.float32)
    base = rng.normal(0, 4, CLASSES).astype(np.float32)
    said = base if cheated else certified
    said = (said * (1 + 2e-6 * rng.standard_normal(CLASSES))).astype(np.float32)
    return classify(said, certified, base, tells=True, tolerance=1e-4, drift=0.05)


def caught(rng: np.random.Generator, *, rate: float, budget: int, by: str) -> bool:
    """Whether one run against a server that cheats at this rate has a finding."""
    rounds = [rng.permutation(IDENTITIES) for _ in range(-(-budget // IDENTITIES))]
    identities = np.concatenate(rounds)[:budget]
    if by == "query":
        cheats = rng.random(budget) < rate
    else:  # some identities, always
        cheats = np.isin(identities, rng.permutation(IDENTITIES)[: round(rate * IDENTITIES)])
    if not rate:
        return any(outcome(rng, cheated=False) not in (Outcome.EXACT, Outcome.CLOSE) for _ in range(budget))
    # Only the cheated answers are judged: that honest ones give no finding is what the honest runs show.
    return any(outcome(rng, cheated=True) is Outcome.BASE for _ in range(int(cheats.sum())))


def cell(rng: np.random.Generator, *, runs: int, rate: float, budget: int, by: str) -> str:
    hits = sum(caught(rng, rate=rate, budget=budget, by=by) for _ in range(runs))
    low, high = interval(hits, runs)
    formula = 1 - (1 - rate) ** budget
    return f"{hits / runs:.3f} [{low:.3f}, {high:.3f}] ({formula:.3f})"


def table(*, runs: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = [
        f"{runs} seeded runs a cell: share caught, exact 95 % interval, (formula).",
        "",
        "| probes that can tell | bound if none deviates | "
        + " | ".join(f"1 in {1 / rate:g}" for rate in RATES)
        + " |",
        "|---|---|" + "---|" * len(RATES),
    ]
    for budget in BUDGETS:
        cells = [cell(rng, runs=runs, rate=rate, budget=budget, by="query") for rate in RATES]
        lines.append(f"| {budget} | {at_most(0, budget):.2%} | " + " | ".join(cells) + " |")
    one = [cell(rng, runs=runs, rate=0.1, budget=budget, by="identity") for budget in (10, 30, 59)]
    many = 25 * runs
    stated = cell(rng, runs=many, rate=0.01, budget=299, by="query")
    false = sum(caught(rng, rate=0.0, budget=299, by="query") for _ in range(runs))
    low, high = interval(false, runs)
    lines += [
        "",
        "One of ten identities is always cheated (formula: of independent cheats at the same rate): "
        + "; ".join(f"{budget} probes {text}" for budget, text in zip((10, 30, 59), one, strict=True))
        + ".",
        "",
        f"The stated budget, 299 probes against 1 in 100, over {many} runs: {stated}.",
        "",
        f"Honest servers, 299 probes, another order of summation: {false} of {runs} runs with a finding "
        f"[{low:.4f}, {high:.4f}].",
        "",
        "Probes needed for 95 %: "
        + ", ".join(f"{negatives_needed(rate)} for 1 in {1 / rate:g}" for rate in RATES)
        + ".",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = table(runs=arguments.runs, seed=arguments.seed)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
