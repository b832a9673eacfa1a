"""Executions of one model: exact in rationals, and in float32 in every way that the bounds allow.

Written apart from `auditor.propagation`: nodes are read by `auditor.execute.OPERATORS`, which turn them into dense
matrices; sums, products and their roundings are made here, one at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import onnxruntime
import torch

from auditor.execute import OPERATORS, Program
from protocol.model.graph import Graph, Node
from protocol.model.profile import serialise

SUMS = ("Gemm", "MatMul", "Conv", "AveragePool", "GlobalAveragePool")
TINY = np.float32(2.0**-126)


def dense(node: Node, constants: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The matrix [out, in] of a node of SUMS, pools without their quotient, Gemm without alpha and bias."""
    size = int(np.prod(shape))
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    attributes = dict(node.attributes)
    tensors = [unit, *(torch.from_numpy(constants[name].astype(np.float64)) for name in node.inputs[1:2])]
    if node.op == "Gemm":
        attributes["alpha"] = 1.0
    found = OPERATORS[node.op](tensors, attributes).reshape(size, -1).numpy().T
    return (found > 0).astype(np.float64) if node.op.endswith("Pool") else found


def counts(node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """How many values each output of an average pool is divided by."""
    if node.op == "GlobalAveragePool":
        return np.full(shape[0], np.prod(shape[1:]))
    if node.attributes["count_include_pad"]:
        return np.full(1, np.prod(node.attributes["kernel_shape"]))
    return dense(node, {}, shape).sum(axis=1)


@dataclass(slots=True, kw_only=True)
class Execution:
    """One way to compute: drawn anew for every sum.

    Args:
        rng: draws orders and fusions.
        flush: subnormal results and operands become zero.
        fuse: products may be added without being rounded.
        wide: sums may be gathered in float64.
    """

    rng: np.random.Generator
    flush: bool = False
    fuse: bool = True
    wide: bool = False

    def f(self, values: np.ndarray) -> np.ndarray:
        """To float32, flushed if flushing."""
        with np.errstate(all="ignore"):
            rounded = np.asarray(values).astype(np.float32)
        return np.where(np.abs(rounded) < TINY, np.float32(0), rounded) if self.flush else rounded

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.f(self.f(a) + self.f(b))

    def mul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.f(self.f(a) * self.f(b))

    def fma(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.f(self.f(a).astype(np.float64) * self.f(b) + self.f(c))

    def dot(self, weights: np.ndarray, x: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """sum_i weights[i] x[record, i] (+ start), in some order."""
        order = self.rng.permutation(len(weights))
        if self.wide and self.rng.random() < 0.5:
            with np.errstate(all="ignore"):
                total = x.astype(np.float64) @ weights + (0 if start is None else start)
            return self.f(total)
        if self.fuse and self.rng.random() < 0.5:
            total = np.zeros(len(x), np.float32) if start is None else np.broadcast_to(start, len(x))
            for place in order:
                total = self.fma(np.float32(weights[place]), x[:, place], total)
            return self.f(total)
        parts = [self.mul(np.float32(weights[place]), x[:, place]) for place in order]
        if start is not None:
            parts.insert(int(self.rng.integers(len(parts) + 1)), np.broadcast_to(start, len(x)))
        parts = parts or [np.zeros(len(x), np.float32)]
        tree = self.rng.random() < 0.5
        while len(parts) > 1:
            place = int(self.rng.integers(len(parts) - 1)) if tree else 0
            parts[place : place + 2] = [self.add(parts[place], parts[place + 1])]
        return self.f(parts[0])

    def sums(self, node: Node, constants: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        matrix, shape = dense(node, constants, x.shape[1:]), x.shape[1:]
        flat = x.reshape(len(x), -1)
        bias = None
        if len(node.inputs) == 3:
            bias = constants[node.inputs[2]].reshape(-1)
            bias = np.repeat(bias, len(matrix) // len(bias))
        alpha, beta = (np.float32(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        early = alpha != 1 and self.rng.random() < 0.5
        rows = []
        for place, row in enumerate(matrix):
            used = np.flatnonzero(row)
            weights = self.mul(row[used].astype(np.float32), alpha) if early else row[used]
            start = None if bias is None else self.mul(bias[place], beta) if beta != 1 else bias[place]
            late = alpha != 1 and not early
            total = self.dot(weights, flat[:, used], None if late else start)
            if late:
                total = self.mul(total, alpha)
                total = total if start is None else self.add(total, start)
            rows.append(total)
        made = np.stack(rows, axis=1)
        if node.op.endswith("Pool"):
            divisor = counts(node, shape).astype(np.float32)
            with np.errstate(all="ignore"):
                made = self.mul(made, np.float32(1) / divisor) if self.rng.random() < 0.5 else self.f(made / divisor)
        return made

    def normalise(self, node: Node, constants: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        scale, bias, mean, variance = (constants[name].reshape(-1, *(1,) * (x.ndim - 2)) for name in node.inputs[1:])
        factor = slope(self, scale, variance, node.attributes["epsilon"])
        match self.rng.integers(4):
            case 0:
                return self.add(self.mul(self.add(x, -mean), factor), bias)
            case 1:
                return self.fma(x, factor, self.add(bias, -self.mul(mean, factor)))
            case 2:
                return self.add(self.mul(x, factor), self.fma(-mean, factor, bias))
            case _:
                with np.errstate(all="ignore"):
                    root = self.f(np.sqrt(self.add(variance, np.float32(node.attributes["epsilon"]))))
                    return self.add(self.f(self.mul(scale, self.add(x, -mean)) / root), bias)

    def run(self, graph: Graph, x: np.ndarray) -> np.ndarray:
        """Logits of some records."""
        values, constants = {graph.input: self.f(x)}, graph.initialisers
        for node in graph.nodes:
            inputs = [values[name] if name in values else constants[name] for name in node.inputs]
            if node.op in SUMS:
                made = self.sums(node, constants, inputs[0])
                made = made.reshape(len(x), *self.shape(node, constants, inputs[0]))
            elif node.op == "BatchNormalization":
                made = self.normalise(node, constants, inputs[0])
            elif node.op in ("Add", "Sub"):
                made = self.add(inputs[0], -inputs[1] if node.op == "Sub" else inputs[1])
            elif node.op == "Mul":
                made = self.mul(*inputs)
            else:
                kernel = OPERATORS[node.op]([torch.from_numpy(np.array(array)) for array in inputs], node.attributes)
                made = self.f(kernel.numpy()) if node.op in ("Relu", "MaxPool") else kernel.numpy()
            values[node.outputs[0]] = made
        return values[graph.output]

    @staticmethod
    def shape(node: Node, constants: Mapping[str, np.ndarray], x: np.ndarray) -> tuple[int, ...]:
        tensors = [torch.zeros(1, *x.shape[1:]), *(torch.from_numpy(np.array(constants[n])) for n in node.inputs[1:])]
        return tuple(OPERATORS[node.op](tensors, node.attributes).shape[1:])


def slope(execution: Execution, scale: np.ndarray, variance: np.ndarray, epsilon: float) -> np.ndarray:
    """scale / sqrt(variance + epsilon), one rounding at a time."""
    with np.errstate(all="ignore"):
        root = execution.f(np.sqrt(execution.add(variance, np.float32(epsilon))))
        if execution.rng.random() < 0.5:
            return execution.f(execution.f(scale) / root)
        return execution.mul(scale, execution.f(np.float32(1) / root))


def folded(graph: Graph, execution: Execution) -> Graph:
    """Normalisations multiplied into the Gemm or Conv before them, in float32, as runtimes do it."""
    nodes, constants = list(graph.nodes), {name: np.array(array) for name, array in graph.initialisers.items()}
    uses = [name for node in nodes for name in node.inputs]
    for node in list(nodes):
        maker = next((one for one in nodes if one.outputs[0] == node.inputs[0]), None)
        if node.op != "BatchNormalization" or maker is None or uses.count(maker.outputs[0]) != 1:
            continue
        if maker.op not in ("Conv", "Gemm") or (maker.op == "Gemm" and maker.attributes["alpha"] != 1):
            continue
        scale, bias, mean, variance = (constants[name] for name in node.inputs[1:])
        factor = slope(execution, scale, variance, node.attributes["epsilon"])
        weight = constants[maker.inputs[1]]
        across = (-1, *(1,) * (weight.ndim - 1)) if maker.op == "Conv" or maker.attributes["transB"] else (1, -1)
        old = constants[maker.inputs[2]].reshape(-1) if len(maker.inputs) == 3 else np.zeros_like(scale)
        old = execution.mul(old, np.float32(maker.attributes.get("beta", 1.0)))
        suffix = f"{node.outputs[0]}/folded"
        constants[f"{suffix}/w"] = execution.mul(weight, factor.reshape(across))
        constants[f"{suffix}/b"] = execution.add(execution.mul(execution.add(old, -mean), factor), bias)
        attributes = {**maker.attributes, **({"beta": 1.0} if maker.op == "Gemm" else {})}
        made = replace(
            maker,
            inputs=(maker.inputs[0], f"{suffix}/w", f"{suffix}/b"),
            outputs=node.outputs,
            attributes=attributes,
        )
        nodes[nodes.index(maker)] = made
        nodes.remove(node)
    used = {name for node in nodes for name in node.inputs}
    kept = {name: array for name, array in constants.items() if name in used}
    return replace(graph, nodes=tuple(nodes), initialisers=kept)


def exactly(graph: Graph, x: np.ndarray) -> list[Fraction]:
    """The real function of one record, in rationals (square roots to 80 digits)."""
    values = {graph.input: np.array([Fraction(float(v)) for v in x.ravel()], object).reshape(x.shape)}
    constants = graph.initialisers

    def exact(array: np.ndarray) -> np.ndarray:
        flat = np.array([Fraction(float(v)) for v in array.ravel()] or [None], object)
        return flat[: array.size].reshape(array.shape)

    for node in graph.nodes:
        inputs = [values.get(name) for name in node.inputs]
        first = inputs[0]
        fixed = [exact(constants[name]) if name in constants and constants[name].dtype == np.float32 else None
                 for name in node.inputs]  # fmt: skip
        inputs = [value if value is not None else constant for value, constant in zip(inputs, fixed, strict=True)]
        if node.op in SUMS:
            matrix = exact(dense(node, constants, first.shape)) * Fraction(node.attributes.get("alpha", 1.0))
            made = matrix.dot(first.ravel())
            if node.op.endswith("Pool"):
                made = made / exact(np.broadcast_to(counts(node, first.shape), made.shape))
            if len(inputs) == 3:
                bias = inputs[2].ravel() * Fraction(node.attributes.get("beta", 1.0))
                made = made + np.repeat(bias, len(made) // len(bias))
            made = made.reshape(Execution.shape(node, constants, np.zeros((1, *first.shape), np.float32)))
        elif node.op == "BatchNormalization":
            scale, bias, mean, variance = (part.reshape(-1, *(1,) * (first.ndim - 1)) for part in inputs[1:])
            spread = variance + Fraction(node.attributes["epsilon"])
            made = (first - mean) * scale / np.vectorize(_root, otypes=[object])(spread) + bias
        elif node.op in ("Add", "Sub", "Mul"):
            left, right = (part[0] if part.ndim > _rank(values, node) else part for part in inputs)
            made = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[node.op](left, right)
        elif node.op == "Relu":
            made = np.maximum(first, Fraction(0))
        else:
            # Moves and MaxPool: by the order of ranks, which floats hold.
            ranks = sorted(set(first.ravel().tolist()))
            coded = np.searchsorted(np.array(ranks, object), first.ravel()).reshape(1, *first.shape)
            tensors = [torch.from_numpy(coded.astype(np.float64))]
            tensors += [torch.from_numpy(np.array(constants[name])) for name in node.inputs[1:]]
            moved = OPERATORS[node.op](tensors, node.attributes).numpy()[0].astype(np.int64)
            made = np.array(ranks, object)[moved]
        values[node.outputs[0]] = made
    return values[graph.output].ravel().tolist()


def _rank(values: Mapping[str, np.ndarray], node: Node) -> int:
    return max(values[name].ndim for name in node.inputs if name in values)


def _root(value: Fraction) -> Fraction:
    context = Context(prec=90)
    return Fraction(context.sqrt(context.divide(Decimal(value.numerator), Decimal(value.denominator))))


def runtimes(graph: Graph, x: np.ndarray) -> list[np.ndarray]:
    """Logits by torch and onnxruntime, optimised and not, in batches of different sizes, flushing and not."""
    found = [Program(graph)(x, batch=batch) for batch in {1, 3, len(x)}]
    if torch.set_flush_denormal(True):
        try:
            found.append(Program(graph)(x))
        finally:
            torch.set_flush_denormal(False)
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(serialise(graph), options, providers=["CPUExecutionProvider"])
        found += [session.run(None, {graph.input: x})[0], session.run(None, {graph.input: x[:1]})[0]]
    return found
