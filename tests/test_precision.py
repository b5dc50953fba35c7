"""`full_precision` against everything that torch has to say float32 may be less."""

from __future__ import annotations

from typing import Any, Dict, Iterator

import pytest
import torch

from squeeze_patch.precision import full_precision

#: each in the place of a user's line; those that this torch does not have are left out
LINES = (
    "",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'bf16'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.backends.mkldnn.conv.fp32_precision = 'bf16'",
)
NEWER = hasattr(torch.backends, "fp32_precision")
OLDER = ("get_float32_matmul_precision()", "backends.cuda.matmul.allow_tf32", "backends.cudnn.allow_tf32")
NEW = tuple(
    f"backends.{place}fp32_precision"
    for place in ("", "cuda.matmul.", "cudnn.", "cudnn.conv.", "mkldnn.", "mkldnn.matmul.", "mkldnn.conv.")
)


def settings() -> Dict[str, Any]:
    """What torch answers; where the older and the newer settings disagree, it raises."""
    found = {}
    for name in (*OLDER, *(NEW if NEWER else ())):
        try:
            found[name] = eval(f"torch.{name}")
        except RuntimeError:
            found[name] = "mixed"
    return found


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    if NEWER:
        for name in NEW:
            exec(f"torch.{name} = 'none'")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def error_of_a_product() -> float:
    """In units of what bfloat16 would bring about: products of 1024 terms of size one."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 1024, generator=random)
    return float((x @ x - (x.double() @ x.double()).float()).abs().max()) / (2.0**-8 * 32)


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("line", LINES)
def test_full_within_and_as_it_was_afterwards(line: str, cuda: bool) -> None:
    if "fp32_precision" in line and not NEWER:
        pytest.skip("torch has fp32_precision since 2.9")
    exec(line)
    before = settings()
    with full_precision(), full_precision(cuda=cuda):
        assert error_of_a_product() < 0.01
        within = settings()
        if NEWER:
            names = ("mkldnn.matmul", "mkldnn.conv", *(("cuda.matmul", "cudnn.conv") if cuda else ()))
            assert {within[f"backends.{name}.fp32_precision"] for name in names} <= {"ieee", "none"}
        elif cuda:
            assert within[OLDER[0]] == "highest"
            assert not within[OLDER[2]]
    assert settings() == before


def test_blocks_that_overlap_give_the_settings_back_once() -> None:
    """As those of two threads do."""
    torch.set_float32_matmul_precision("medium")
    before = settings()
    first, second = full_precision(), full_precision(cuda=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert error_of_a_product() < 0.01
    second.__exit__(None, None, None)
    assert settings() == before
