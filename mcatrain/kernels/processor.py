"""The machine's processor, as far as torch knows it."""

from __future__ import annotations

from typing import Any

import torch


def capabilities() -> dict[str, Any]:
    """Return the processor's name and what it can do; nothing where this torch does not say."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found
