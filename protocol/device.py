"""The names of what networks are trained on, as options and reports spell them; each side does its own arithmetic."""

from typing import Literal, get_args

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)

__all__ = ["DEVICES", "Device"]
