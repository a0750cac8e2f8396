"""What benchmarks.gpu does, at sizes for Triton's interpreter; and where there is no card."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu, gpu_pairs
from devicemodels import kernels


def test_its_parts_run() -> None:
    """The check finds the kernels right, every timing is made, and the report holds them."""
    pytest.importorskip("triton", reason="the kernels for CUDA need triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = {"width": 96, "rounds": 1, "hidden": 12, "batch": 3, "images": 2}
    s = gpu.Sizes(device, **small, cnn_seconds=1e-3, cnn_lr=1e-4)
    far = gpu_pairs.check(s.width, device)
    assert gpu_pairs.agrees(far), far
    assert len(far) == 14
    assert not gpu_pairs.agrees(far | {"chi": 1e-3})
    assert not gpu_pairs.agrees(far | {"index": 1.0})
    assert not gpu_pairs.agrees(far | {"pulses, one pass": 1.0})
    with kernels.use("cuda"):
        passes, steps = gpu.chi_pass(s), gpu.mlp_steps(s)
    epochs = gpu.cnn_epochs(s)
    assert all(v > 0 for found in (passes, *steps.values(), epochs) for v in found.values())
    text = gpu.report(s, passes, steps, epochs, "here")
    assert all(name in text for found in (passes, steps, epochs) for name in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu"])
    assert gpu.main() == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "no CUDA card" in err
