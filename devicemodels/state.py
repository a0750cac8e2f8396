"""Device state in modules: dtypes that hold, Python scalars in state_dict, chance per tile."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from devicemodels import kernels

_WORD = 2**64 - 1
#: Normals from which on the kernel is faster than torch.
_MANY = 4096


class StateModule(nn.Module):
    """A module whose buffers keep their dtype and whose listed scalars live in state_dict.

    ``model.half()`` or ``.to(torch.bfloat16)`` would otherwise round a float64 time or a
    conductance; such calls move device state between machines but never change its type.
    """

    #: Name and type of Python attributes that belong to the state (saved as 0-d tensors).
    scalars: ClassVar[dict[str, type[int] | type[float]]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Numbers change at every step, and torch asks of each whether it is a module.
        if type(value) in (int, float):
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)
        if name in self.__dict__.get("_modules", ()):  # found at once: torch looks there last
            self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name in self._modules:
            self.__dict__.pop(name, None)
        super().__delattr__(name)

    def borrow(self, name: str, module: nn.Module) -> None:
        """Keep a reference to a module that another one owns (and saves, and moves)."""
        object.__setattr__(self, name, module)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, kind in self.scalars.items():
            dtype = torch.int64 if kind is int else torch.float64
            destination[prefix + name] = torch.tensor(getattr(self, name), dtype=dtype)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        missing_keys = rest[2]
        for name, kind in self.scalars.items():
            value = state_dict.pop(prefix + name, None)
            if value is None:
                missing_keys.append(prefix + name)
            else:
                setattr(self, name, kind(value.item()))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def derive_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed for the stream ``name`` of the run ``seed``."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Chance(StateModule):
    """The random numbers of one tile: a generator seeded from (run seed, tile name).

    Its state is part of ``state_dict``, so a resumed run draws the numbers that an unbroken
    one would have drawn. Moving it to another device starts a fresh stream of the same seed.
    """

    def __init__(self, seed: int, name: str) -> None:
        super().__init__()
        self.seed, self.name = seed, name
        self._seat(torch.device("cpu"))

    def _seat(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device)
        self._begin(self.name)

    def _begin(self, stream: str) -> None:
        """Start the stream of a name: the generator, and the seeds of kernels."""
        self._key = derive_seed(self.seed, stream)
        self._seeds = 0
        self.generator.manual_seed(self._key)

    def seed_next(self) -> int:
        """Return the next seed, 0 to 2^63 - 1, for a kernel with random numbers of its own.

        The stream's key and a count, mixed by splitmix64 (Steele, Lea & Flood, OOPSLA 2014): no
        draw from the generator, which would cost more than many a kernel.
        """
        self._seeds += 1
        z = (self._key + self._seeds * 0x9E3779B97F4A7C15) & _WORD
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
        return (z ^ (z >> 31)) >> 1

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normals, float32."""
        if self.device.type == "cpu" and math.prod(shape) >= _MANY:
            out = torch.empty(shape, dtype=torch.float32)
            kernels.normals(out, self.seed_next())
            return out
        return torch.randn(
            *shape, generator=self.generator, device=self.device, dtype=torch.float32
        )

    def uniform(self, *shape: int) -> Tensor:
        """Draw from [0, 1), float32."""
        return torch.rand(*shape, generator=self.generator, device=self.device, dtype=torch.float32)

    @contextmanager
    def fork(self, tag: str) -> Iterator[None]:
        """Draw from a stream of its own for a while (an evaluation must not shift training)."""
        kept = self.generator.get_state(), self._key, self._seeds
        self._begin(f"{self.name}/{tag}")
        try:
            yield
        finally:
            state, self._key, self._seeds = kept
            self.generator.set_state(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Chance:
        twin = Chance(self.seed, self.name)
        if self.device != twin.device:
            twin._seat(self.device)
        twin.generator.set_state(self.generator.get_state())
        twin._key, twin._seeds = self._key, self._seeds
        memo[id(self)] = twin
        return twin

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, device=self.device)).device
        if device != self.device:
            self._seat(device)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "state"] = self.generator.get_state()
        destination[prefix + "seeds"] = torch.tensor([self._key, self._seeds])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        missing_keys, errors = rest[2], rest[4]
        state, seeds = (state_dict.get(prefix + name) for name in ("state", "seeds"))
        if state is None or seeds is None:
            missing_keys.append(prefix + ("state" if state is None else "seeds"))
        elif state.numel() != self.generator.get_state().numel():
            errors.append(f"{prefix}state: saved on another kind of device than {self.device}")
        else:
            self.generator.set_state(state.to(torch.uint8).cpu())
            self._key, self._seeds = seeds.tolist()
