"""Where shadow models are trained: on the processor, or on a GPU that was asked for.

Proves nothing. Shadow models of a GPU equal those of a processor up to float32 rounding, amplified by training: other
draws from the same distribution, of which a report says so. What claims are about is always run on the processor
(`auditor.execute`). Source: torch.backends (fp32_precision, deterministic).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from auditor.execute import float32_arithmetic
from protocol.device import Device
from protocol.errors import AuditorError


def check_device(device: Device) -> None:
    """See that there is one.

    Raises:
        AuditorError: no GPU, or torch was built without support for it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise AuditorError("torch finds no GPU here; leave --device away")


@contextmanager
def training_arithmetic() -> Iterator[None]:
    """`float32_arithmetic` on processor and GPU, by kernels that add in a fixed order where there is a choice."""
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    fixed = torch.backends.cudnn.deterministic
    for setting in settings:
        setting.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True
    try:
        with float32_arithmetic():
            yield
    finally:
        torch.backends.cudnn.deterministic = fixed
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


__all__ = ["check_device", "training_arithmetic"]
