"""How the steps of the step devices depend on the state, with the constants of each response."""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.models.base import Constant, Values
from calibration.models.priors import log_normal, normal

#: Responses and the device_type of their parameter files.
RESPONSES = {
    "constant": "constant-step",
    "linear": "linear-step",
    "soft-bounds": "soft-bounds",
    "exponential": "exponential-step",
}


def scale(response: str, v: Values, w: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor on the step at the state w of the window, and its slope against w."""
    if response == "exponential":
        # Beyond e^50 nothing changes but that infinity would have no slope.
        rise = v["A_up"] * torch.exp((v["gamma_up"] * w).clamp(max=50))
        fall = v["A_down"] * torch.exp((-v["gamma_down"] * w).clamp(max=50))
        part = 1 - torch.where(up, rise, fall)
        tilt = torch.where(up, -v["gamma_up"] * rise, v["gamma_down"] * fall)
    else:
        one = torch.ones_like(w)
        if response == "linear":
            tilt = torch.where(up, -v["slope_up"] * one, v["slope_down"] * one)
        else:
            tilt = torch.where(up, -one, one) * (response == "soft-bounds")
        part = 1 + tilt * w
    return part.clamp(min=0), torch.where(part > 0, tilt, 0.0)


def own_constants(response: str) -> tuple[Constant, ...]:
    """Return the constants that only this response has."""
    if response == "soft-bounds":
        return (
            Constant("g_high", "uS", "conductance at which up steps vanish", log_normal(20.0, 1.5)),
            Constant("g_low", "uS", "conductance at which down steps vanish", log_normal(1.0, 2.0)),
        )
    found: list[Constant] = []
    for way in ("up", "down"):
        if response == "linear":
            about = f"relative loss of the {way} step from middle to end of the window"
            found.append(Constant(f"slope_{way}", "1", about, normal(0.0, 1.0)))
        elif response == "exponential":
            about = f"loss of the {way} step at the middle of the window"
            found.append(Constant(f"A_{way}", "1", about, log_normal(0.1, 1.5)))
            about = f"steepness of the saturation, {way}"
            found.append(Constant(f"gamma_{way}", "1", about, log_normal(1.0, 0.7)))
    return tuple(found)
