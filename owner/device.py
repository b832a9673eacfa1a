"""Where networks are trained: on the processor, or on a GPU that was asked for.

Proves nothing. A GPU adds up in another order, and not always in the same one: what it trains equals what a processor
trains up to float32 rounding, amplified by training. So it is never chosen by itself, and nothing that a claim is
about runs on it (`execute`, `intervals`): the same seed gives the same certificate about the same model everywhere.
Products are IEEE float32, not TF32. Source: torch.backends (fp32_precision, deterministic).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from protocol.device import Device
from protocol.errors import OwnerError


def check_device(device: Device) -> None:
    """See that there is one.

    Raises:
        OwnerError: no GPU, or torch was built without support for it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise OwnerError("torch finds no GPU here; leave --device away")


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """IEEE float32 on GPUs, by kernels that add in a fixed order where there is a choice; put back at the end."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    fixed = torch.backends.cudnn.deterministic
    for setting in settings:
        setting.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = fixed
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
