"""The figures of one cell, from the deployed file run by onnxruntime, and from the signed report's summary.

Nothing here knows how a method works: accuracies come from `patched.onnx`, everything else from `summary.json` and sizes of
files.
"""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.benchmarks.table.flow import PROFILES, Flow, Made

SHOWN = ("confidence", "loss", "lira-offline", "lira-offline-two-sided", "rmia")
_REPEATS = 31


def session(path: Any) -> onnxruntime.InferenceSession:
    """A session with one thread: other worlds may run beside it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _share(session_: onnxruntime.InferenceSession, x: np.ndarray, y: np.ndarray) -> float | None:
    if not len(y):
        return None
    shown = session_.run(None, {session_.get_inputs()[0].name: x})[0].argmax(axis=1)
    return float((shown == y).mean())


def _overhead(base: onnxruntime.InferenceSession, patched: onnxruntime.InferenceSession, x: np.ndarray) -> float:
    # Turn by turn, so that what else the machine does falls on both.
    ratios = []
    name = base.get_inputs()[0].name
    for _ in range(_REPEATS):
        times = []
        for one in (base, patched):
            started = time.perf_counter()
            one.run(None, {name: x})
            times.append(time.perf_counter() - started)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def _membership(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = summary["figures"].get("membership", {})
    if not found:
        return {"reason": summary["checks"]["membership"]["summary"]}
    strongest = max(found, key=lambda name: abs(found[name]["difference"]))
    rates: dict[str, float] = {}
    for attack in SHOWN:
        tails = [
            rate["rate"]
            for form in ("signed", "distance")
            for tail in ("high", "low")
            if isinstance(rate := found.get(f"{attack}.{form}", {}).get("rates", {}).get(f"{tail} tail at 0.01"), dict)
        ]
        if tails:
            rates[attack] = max(tails)
    return {
        "strongest": strongest,
        "difference": abs(found[strongest]["difference"]),
        "bound": max(one["bound"] for one in found.values()),
        "tpr": rates,
    }


def _bytes(bundle: Path) -> int:
    return sum((bundle / name).stat().st_size for name in ("patch.json", "patch.safetensors"))


def _step(base: onnxruntime.InferenceSession, step: Mapping[str, Any], x: np.ndarray) -> dict[str, Any]:
    """What is shown after one of several requests."""
    summary, bundle = step["summary"], step["bundle"]
    return {
        **{name: step[name] for name in ("request", "seconds", "parts", "items", "dropped")},
        "bytes": _bytes(bundle),
        "overhead": _overhead(base, session(bundle / "patched.onnx"), x),
        "radius": summary["figures"].get("certified_radius"),
        "membership": _membership(summary),
        "verdict": summary["verdict"],
        "findings": sorted({finding["threat"] for finding in summary["findings"]}),
    }


def measure(flow: Flow, made: Made) -> dict[str, Any]:
    """Everything that the table shows of one method in one world."""
    roles = flow.roles
    base, patched = session(flow.root / "base.onnx"), session(made.bundle / "patched.onnx")
    gone = np.zeros(len(roles.y), dtype=bool)
    gone[roles.forget] = True
    known = roles.y_reference != roles.klass if roles.klass is not None else np.ones(len(roles.y_reference), bool)
    x, x_reference = flow.inputs(roles.X), flow.inputs(roles.X_reference[known])
    y_reference = roles.y_reference[known]
    accuracy = {
        name: {
            "forget": _share(one, x[gone], roles.y[gone]),
            "retain": _share(one, x[~gone], roles.y[~gone]),
            "test": _share(one, x_reference, y_reference),
        }
        for name, one in (("base", base), ("patched", patched))
    }
    backdoor = None
    if roles.X_triggered is not None:
        stamped = flow.inputs(roles.X_triggered)
        backdoor = {
            name: _share(one, stamped, np.zeros(len(stamped), np.int64))
            for name, one in (("base", base), ("patched", patched))
        }
    last = made.summaries[PROFILES[-1]] if PROFILES[-1] in made.summaries else next(iter(made.summaries.values()))
    checks, figures = last["checks"], last["figures"]
    return {
        "accuracy": accuracy,
        "backdoor": backdoor,
        "seconds": made.seconds,
        "training": flow.training,
        "committing": flow.committing,
        "memory": made.memory,
        "device": flow.device,
        "bytes": _bytes(made.bundle),
        "overhead": _overhead(base, patched, x_reference[:64]),
        "membership": _membership(last),
        "properties": {name: one.get("value") for name, one in figures.get("properties", {}).items()},
        "radius": figures.get("certified_radius"),
        "claims": checks["redirection"]["evidence"].get("claims"),
        "persistence": checks["persistence"]["evidence"].get("share"),
        "rebuilt": checks["disclosure"]["evidence"].get("ratio"),
        "verdicts": {name: summary["verdict"] for name, summary in made.summaries.items()},
        "findings": {
            name: sorted({finding["threat"] for finding in summary["findings"]})
            for name, summary in made.summaries.items()
        },
        "notes": list(made.notes),
        "steps": [_step(base, one, x_reference[:64]) for one in made.steps],
        "times": list(made.times),
    }
