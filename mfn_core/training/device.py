"""Where and in which precision to train."""

from typing import Literal

import torch

from mfn_core.errors import ConfigError


def pick_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a setting names; ``auto`` is CUDA where there is one.

    Raises:
        ConfigError: CUDA is asked for and absent.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            f"device=cuda, but torch {torch.__version__} sees no CUDA device here; set device=auto or cpu, or run on a GPU machine"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def pick_precision(name: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The type of the matrix products. ``auto``: bfloat16 where the hardware computes it, else float32.

    Users a second in bfloat16 against float32, 256 users a step, 50,000 items: 2.6 times on a CPU with AMX, 1.08 times on one with
    AVX-512 alone (benchmarks/results/step-amx.json, step.json).

    Raises:
        ConfigError: bfloat16 is asked for on a GPU without it.
    """
    hardware = _has_bfloat16(device)
    if name == "bfloat16" and device.type == "cuda" and not hardware:
        raise ConfigError(f"precision=bfloat16, but {torch.cuda.get_device_name(device)} lacks it; set precision=auto or float32")
    return torch.bfloat16 if name == "bfloat16" or (name == "auto" and hardware) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
