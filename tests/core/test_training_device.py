"""Where, and in which precision, a run trains."""

import pytest
import torch

from mfn_core.errors import ConfigError
from mfn_core.training.device import pick_device, pick_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True, "amx_bf16": False}, torch.float32)],
)
def test_auto_takes_bfloat16_where_the_cpu_computes_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert pick_precision("auto", CPU) == precision


@pytest.mark.parametrize(("name", "precision"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_named_precision_is_taken(name, precision):
    assert pick_precision(name, CPU) == precision


def test_a_missing_cuda_device_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device=cuda, but .* sees no CUDA device here; set device=auto or cpu"):
        pick_device("cuda")
