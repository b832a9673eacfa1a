"""A12: does the redirection survive what deployment does to a model file?

Proves: for each forgotten record, whether the exported model still gives the patched model's answer, in
onnxruntime on the CPU. A replay at the records themselves, not a proof about their regions.
Assumes: the claims are about float32; what fails here was not promised, and whoever deploys must know.
Does not: vouch for other runtimes or accelerators.

Exports: `float32` writes and runs the file as it is; `float16` and `int8` convert everything;
`float16-base` and `int8-base` convert the base's nodes and keep the gate and its rows in float32, which is how a
careful owner would do it. The converters do not read subgraphs: what they convert whole is the graph with its
branches always run, which gives the same. Sums of a sketch need 24 bits: half precision has 11 and overflows at
65,504.
"""

import logging
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from jaxtyping import Float, Float32

from auditor.attacks.observation import Unavailable
from auditor.attacks.properties import Property, share
from auditor.attacks.subjects import Subjects, ask
from auditor.tail import PREFIX
from protocol.errors import AuditorError
from protocol.model.branches import always_run
from protocol.model.graph import Graph
from protocol.model.profile import serialise

Precision = Literal["float32", "float16", "float16-base", "int8", "int8-base"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def _base(graph: Graph) -> Graph:
    """The part of a composed graph that was there before the patch."""
    nodes = tuple(node for node in graph.nodes if not node.name.startswith(PREFIX))
    made = {node.outputs[0] for node in nodes}
    # The one that a selection falls back to; a gate may read other tensors of the base.
    read = [node.inputs[2] for node in graph.nodes if node.op == "Where" and node.inputs[2] in made]
    constants = {name: array for name, array in graph.initialisers.items() if not name.startswith(PREFIX)}
    return replace(graph, nodes=nodes, initialisers=constants, output=read[0] if read else graph.output)


def _with_gate(base: Any, composed: bytes) -> Any:
    """Put the patch's own nodes behind a converted base, whose output kept its name and type."""
    whole: Any = onnx.load_from_string(composed)
    base.graph.node.extend(node for node in whole.graph.node if node.name.startswith(PREFIX))
    base.graph.initializer.extend(one for one in whole.graph.initializer if one.name.startswith(PREFIX))
    del base.graph.output[:]
    base.graph.output.extend(whole.graph.output)
    return base


def convert(graph: Graph, precision: Precision, folder: Path) -> bytes:
    """Return the exported model file.

    Args:
        graph: the patched model.
        precision: see the module's docstring.
        folder: for temporary files of the quantiser.

    Raises:
        AuditorError: the tools cannot convert it, or are not installed.
    """
    data = serialise(graph)
    if precision == "float32":
        return data
    base_only = precision.endswith("-base")
    try:
        if precision.startswith("float16"):
            from onnxruntime.transformers.float16 import convert_float_to_float16

            part = _base(graph) if base_only else replace(graph, nodes=always_run(graph.nodes))
            half = convert_float_to_float16(onnx.load_from_string(serialise(part)), keep_io_types=True)
            return bytes((_with_gate(half, data) if base_only else half).SerializeToString())
        from onnxruntime.quantization import quantize_dynamic

        path = folder / "int8.onnx"
        quiet = logging.getLogger()
        before = quiet.level
        quiet.setLevel(logging.ERROR)  # it advises on preprocessing, through the root logger
        try:
            gate = [node.name for node in graph.nodes if node.name.startswith(PREFIX)] if base_only else []
            whole = data if base_only else serialise(replace(graph, nodes=always_run(graph.nodes)))
            quantize_dynamic(onnx.load_from_string(whole), path, nodes_to_exclude=gate)
        finally:
            quiet.setLevel(before)
        return path.read_bytes()
    except ImportError as error:
        raise AuditorError(f"onnxruntime's conversion tools are not installed: {error}") from None
    except Exception as error:  # noqa: BLE001 (foreign tools raise whatever they run into; it is one answer: no such export)
        raise AuditorError(f"no {precision} export: {type(error).__name__}: {error}") from None


def run(data: bytes, inputs: Float32[np.ndarray, "record ..."], *, batch: int) -> Float32[np.ndarray, "record class"]:
    """Run a model file in onnxruntime, on the CPU and one thread.

    Raises:
        AuditorError: it cannot be run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        parts = [session.run(None, {name: inputs[at : at + batch]})[0] for at in range(0, len(inputs), batch)]
    except Exception as error:  # noqa: BLE001 (likewise)
        raise AuditorError(f"onnxruntime cannot run the export: {type(error).__name__}: {error}") from None
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRoundTrip:
    """The share of forgotten records whose answer survives an export.

    A record survives if the exported model predicts the same class and no logit is further from the patched
    model's than `tolerance` of the spread of that record's logits. In float32 the tolerance only allows for
    another order of summation: rows of a patch are copied and agree exactly.

    Attributes:
        precision: of the export.
        tolerance: relative to a record's largest less its smallest logit, at least 0.
        batch: records per run.
        graph: the patched model.
    """

    graph: Graph = field(repr=False)
    precision: Precision = "float32"
    tolerance: float = 0.01
    batch: int = 256

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: an unknown precision, a negative tolerance, or no batch.
        """
        if self.precision not in PRECISIONS or not self.tolerance >= 0.0 or self.batch < 1:
            raise AuditorError(f"an export is one of {', '.join(PRECISIONS)}, with a tolerance and a batch")

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Property | Unavailable:
        """Return the share, with the places of the forgotten records that fail, in the order of the records."""
        del generator
        places = np.flatnonzero(subjects.forget)
        if not places.size:
            return Unavailable(reason="there are no forgotten records")
        expected = ask(subjects.patched, subjects.inputs, subjects.labels)
        if isinstance(expected, Unavailable):
            return expected
        try:
            with tempfile.TemporaryDirectory() as folder:
                exported = run(convert(self.graph, self.precision, Path(folder)), subjects.inputs, batch=self.batch)
        except AuditorError as error:
            return Unavailable(reason=str(error))
        off = self._off(expected, exported.astype(np.float64))
        kept = (exported.argmax(axis=1) == expected.argmax(axis=1)) & (off <= self.tolerance)
        value, low, high = share(kept[places])
        failing = tuple(int(place) for place in places[~kept[places]])
        others = ~subjects.forget
        facts = {"never_seen_share": float(kept[others].mean())} if others.any() else {}
        return Property(
            name=f"export.{self.precision}",
            quantity="share of forgotten records whose answer survives the export",
            value=value,
            low=low,
            high=high,
            reading=f"{len(failing)} of {places.size} forgotten records get another answer from the {self.precision} "
            "export.",
            settings=repr(self),
            per_record=off[places],
            failing=failing,
            facts=facts,
        )

    def _off(
        self, expected: Float[np.ndarray, "record class"], exported: Float[np.ndarray, "record class"]
    ) -> Float[np.ndarray, "record"]:
        gap = np.abs(np.where(np.isfinite(exported), exported, np.inf) - expected).max(axis=1)
        spread = np.ptp(expected, axis=1)
        off: np.ndarray = gap / np.where(spread > 0.0, spread, 1.0)
        return off
