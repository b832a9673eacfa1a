"""Convolution and pooling with ONNX's attributes, as torch calls; shared by running and training.

Assumes the profile's restrictions (SPEC 7.3): two dimensions, the same padding on opposite sides, no
dilation, sizes rounded down. Under these, ONNX and torch mean the same.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
Images = Float32[Tensor, "record channel row column"]


def _padding(attributes: Attributes) -> tuple[int, int]:
    return attributes["pads"][0], attributes["pads"][1]


def convolution(attributes: Attributes, x: Images, weight: Tensor, bias: Tensor | None = None) -> Images:
    """ONNX Conv."""
    strides, group = attributes["strides"], attributes["group"]
    return functional.conv2d(x, weight, bias, stride=strides, padding=_padding(attributes), groups=group)


def max_pool(attributes: Attributes, x: Images) -> Images:
    """ONNX MaxPool; padding never wins."""
    return functional.max_pool2d(
        x, attributes["kernel_shape"], stride=attributes["strides"], padding=_padding(attributes)
    )


def average_pool(attributes: Attributes, x: Images) -> Images:
    """ONNX AveragePool; whether padding counts is `count_include_pad`."""
    return functional.avg_pool2d(
        x,
        attributes["kernel_shape"],
        stride=attributes["strides"],
        padding=_padding(attributes),
        count_include_pad=bool(attributes["count_include_pad"]),
    )
