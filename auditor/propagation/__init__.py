"""Sound bounds on what a model computes in float32, over boxes of inputs.

    bound(graph, low, high, objective=P, method="crown") -> Bounds(lower, upper, reasons, method)
    margin_radius(graph, schema, grid, labels) -> largest proven radius of each record, in grid steps
    region(schema, grid, steps) -> the boxes that those radii mean

What is proven. For every float32 input in a record's box and every execution of the model, the exact combination
P f of the float32 logits lies in [lower, upper]. An execution may sum in any order and parenthesising, in any
block size and batch size, fuse multiply and add or not, use more precision inside, flush subnormal inputs and results
to zero or not, and multiply constants of neighbouring affine nodes together beforehand, in float32 (as runtimes fold
a BatchNormalization into a convolution). `rounding` has the arithmetic, `enclosure` and `backward` the argument.

What it rests on. IEEE 754 float32 with rounding to nearest in the model, float64 likewise here; classical matrix
products in the BLAS and in torch's float64 convolution. Our own rounding is counted generously rather than directed.

What is not proven. Executions with TF32, bfloat16 or half precision inside, Winograd or FFT convolutions, Strassen
products, approximate reciprocals or square roots, quantised kernels. Anything where the result is infinite: overflow
is possible, an operator is outside the list of `plan`, or the relaxation is just too loose, which for deep
convolutional nets with normalisation is the rule. An infinite or useless bound is INCONCLUSIVE; it refutes nothing.

Proof hints (slopes of lower lines) are evaluated, never believed: any slope in [0, 1] is sound, others are refused.

Source: Higham, Accuracy and Stability of Numerical Algorithms, 3.1; Zhang et al. 2018 (CROWN).
"""

from auditor.propagation.bounds import NEURONS, Bounds, Method, bound, bound_plan
from auditor.propagation.plan import Plan, make_plan
from auditor.propagation.radius import UNPROVEN, margin_radius, margin_rows
from auditor.propagation.region import region

__all__ = [
    "NEURONS",
    "UNPROVEN",
    "Bounds",
    "Method",
    "Plan",
    "bound",
    "bound_plan",
    "make_plan",
    "margin_radius",
    "margin_rows",
    "region",
]
