"""step-response: up and down steps of bipolar devices, read with noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.data import PAD, last_of_pulse
from calibration.models.priors import half_normal, log_normal
from calibration.models.quadrature import log_mean
from calibration.models.step_data import DOWN, UP, StepData, differences, gather
from calibration.models.step_filter import predicted
from calibration.models.step_scale import RESPONSES, own_constants, scale
from devicemodels.errors import InputError, closest

#: Read noise of noiseless tables [µS]: the rounding of float32 conductances.
_RESOLUTION = 1e-5
#: Places along the axis of reports.
_PLACES = 100


class StepResponse(CalibrationModel):
    """Steps of `devicemodels.devices.step`, in the conductance of the table [µS].

    With w = (2 g - g_high - g_low) / (g_high - g_low) and f a device's own factor, a pulse and a
    read are

        g' = g +- f step_n scale(w) (1 + cycle N(0, 1)),   read = g' + read N(0, 1)
        step_up = step 2 r / (1 + r), step_down = step 2 / (1 + r), r = up_down
        ln f ~ N(0, step_spread)

    scale, never below 0, is 1 (constant), 1 -+ slope w (linear), 1 -+ w (soft-bounds) or
    1 - A exp(+- gamma w) (exponential). Soft bounds fit g_high and g_low. In the other responses
    they would only rescale the other constants: there they are the highest and lowest read of
    the table. The starting state is its read, within read noise; nothing is asked of it.

    The true g is not seen: it is followed by a Kalman filter; f is integrated out by adaptive
    Gauss-Hermite quadrature. Approximations: scale is linearised, and its noise taken, at a
    causal moving average of the reads (exact in the mean where scale is linear in g); clipping
    at the bounds by noise is left out of the likelihood, not of replicates; a device has no
    bounds and no up_down of its own. Noise that is neither white in the reads nor independent
    from pulse to pulse is in no response. One device cannot tell a spread: of one, f is 1 (step
    is its own), and step_spread keeps its prior.
    """

    name = "step-response"
    family = "pulses"

    def __init__(self, response: str = "soft-bounds") -> None:
        if response not in RESPONSES:
            raise InputError(f"response {response!r}: {closest(str(response), RESPONSES)}")
        self.response = response
        self.constants = (
            Constant(
                "step", "uS", "step at the middle, mean of up and down", log_normal(0.05, 2.0)
            ),
            Constant(
                "up_down", "1", "ratio of up to down step at the middle", log_normal(1.0, 0.3)
            ),
            *own_constants(response),
            Constant("cycle", "1", "cycle-to-cycle spread, in steps", half_normal(5.0)),
            Constant("read", "uS", "read noise", half_normal(1.0)),
            Constant("step_spread", "1", "device-to-device spread of ln step", half_normal(0.3)),
        )

    @property
    def device_type(self) -> str:  # type: ignore[override]
        """The device_type of the parameter file that a fit writes."""
        return RESPONSES[self.response]

    def prepare(self, measurements: Measurements) -> StepData:
        """Return the reads; after its first row a sequence may hold up, down and read only."""
        return gather(measurements)

    def start(self, data: StepData) -> dict[str, Tensor]:
        """Return what differences of successive reads tell, and else medians of the priors."""
        found = super().start(data)
        means, deviation, correlation = differences(data.reads, data.kind)
        low, high = data.window
        size = high - low
        up, down = means.get(UP, 0.0), -means.get(DOWN, 0.0)
        step = max((up + down) / (2 if up and down else 1), 1e-5 * size)
        # Of white read noise successive differences have half their variance in common.
        read = deviation * math.sqrt(max(-correlation, 1e-3))
        cycle = deviation * math.sqrt(max(1 + 2 * correlation, 1e-3)) / step
        found |= {
            "step": _tensor(step),
            "read": _tensor(max(read, _RESOLUTION)),
            "cycle": _tensor(min(max(cycle, 0.05), 10.0)),
        }
        if up > 0 and down > 0:
            found["up_down"] = _tensor(min(max(up / down, 0.5), 2.0))
        if self.response == "soft-bounds":
            found["g_high"] = _tensor(high + 0.25 * size)
            found["g_low"] = _tensor(max(low - 0.25 * size, 0.1 * high))
        return found

    def log_likelihood(self, values: Values, data: StepData) -> Tensor:
        v = {name: value[..., None, None, None] for name, value in values.items()}
        g, noise = data.path[:, :-1], v["read"] ** 2 + _RESOLUTION**2
        seen = data.kind[:, 1:] != PAD
        step, tilt = self._step(v, g, data)  # (draws..., 1, sequences, steps)
        shift, spread = step - tilt * g, (v["cycle"] * step) ** 2

        def log_density(u: Tensor) -> Tensor:
            factor = torch.exp(v["step_spread"] * u[..., data.device, None])
            mean, variance = predicted(
                1 + factor * tilt, factor * shift, factor**2 * spread, data.reads, noise
            )
            density = (data.reads[:, 1:] - mean) ** 2 / variance + torch.log(variance)
            density = -0.5 * (density + math.log(2 * math.pi))
            return data.by_device(torch.where(seen, density, 0.0).sum(-1))

        if data.number == 1:
            return log_density(torch.zeros_like(v["step_spread"][..., 0]))[..., 0, :]
        return log_mean(log_density, self._deviate(v, step, data))

    def _deviate(self, v: Values, step: Tensor, data: StepData) -> Tensor:
        """Return about where in N(0, 1) each device's ln f lies, (draws..., devices)."""
        with torch.no_grad():
            along = torch.sign(step) * torch.where(data.kind[:, 1:] >= UP, data.reads.diff(), 0.0)
            moved = data.by_device(along.sum(-1))
            expected = data.by_device(step.abs().sum(-1)).clamp(min=1e-12)
            noise = v["cycle"] ** 2 * step**2
            variance = data.by_device(noise.sum(-1)) + 6 * v["read"][..., 0] ** 2
            spread = v["step_spread"][..., 0]
            found = torch.log((moved / expected).clamp(0.05, 20)) * spread
            return (found / (spread**2 + variance / expected**2 + 1e-12))[..., 0, :]

    def _step(self, v: Values, g: Tensor, data: StepData) -> tuple[Tensor, Tensor]:
        """Return the mean step from g before each read but the first [µS], and its slope."""
        low, high = self._bounds(v, data)
        size = torch.as_tensor(high - low).clamp(min=1e-6)
        up, kind = data.kind[:, 1:] == UP, data.kind[:, 1:]
        part, tilt = scale(self.response, v, (2 * g - high - low) / size, up)
        ratio = v["up_down"]
        signed = torch.where(up, 2 * ratio / (1 + ratio), -2 / (1 + ratio)) * v["step"]
        signed = torch.where(kind >= UP, signed, 0.0)
        return signed * part, signed * tilt * 2 / size

    def _bounds(self, v: Values, data: StepData) -> tuple[Tensor | float, Tensor | float]:
        return (v["g_low"], v["g_high"]) if self.response == "soft-bounds" else data.window

    def replicate(self, values: Values, data: StepData, chance: torch.Generator) -> Tensor:
        """Return reads (sequences, steps) from the same starting reads; padding is 0."""
        n, steps = data.reads.shape
        read, cycle = values["read"], values["cycle"]

        def normal(count: int) -> Tensor:
            return torch.randn(count, generator=chance, dtype=torch.float64)

        factor = torch.exp(values["step_spread"] * normal(data.number))[data.device]
        g = data.reads[:, 0] + read * normal(n)
        low, high = (float(bound) for bound in self._bounds(values, data))
        found = [data.reads[:, 0]]
        for k in range(1, steps):
            one = StepData(
                data.reads, data.kind[:, k - 1 : k + 1], data.path, data.device, n, data.window
            )
            moved = factor * self._step(values, g[:, None], one)[0][:, 0]
            g = g + moved * (1 + cycle * normal(n))
            g = g.clamp(low, high)
            found.append(g + read * normal(n))
        return torch.where(data.kind == PAD, 0.0, torch.stack(found, 1))

    def groups(self, data: StepData) -> tuple[str, list[tuple[float, Tensor]]]:
        last = last_of_pulse(data.kind, data.seen)
        pulse = (data.kind >= UP).cumsum(1)
        width = max(1, -(-int(pulse.max()) // _PLACES))
        found = []
        for first in range(0, int(pulse.max()) + 1, width):
            where = last & (pulse >= first) & (pulse < first + width)
            found.append((first + (width - 1) / 2, where))
        return "pulses since the first read", found


def _tensor(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)
