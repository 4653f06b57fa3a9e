"""The fast ways to embed against the plain one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.compute import fused
from dsdistill.compute.embedder import Embedder
from dsdistill.networks import build_network
from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock
from dsdistill.runtime import compiler
from dsdistill.seeding import forked, generator

CPU = torch.device("cpu")


def frozen(name: str, channels: int = 1, size: int = 8, seed: int = 0) -> Network:
    """Return a network with frozen weights, those of the norms drawn too."""
    with forked(seed, "test"):
        network = build_network(name, channels, size, 10)
        for parameter in network.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, 0.5, 0.5)
    return network.requires_grad_(False)


def pictures(count: int, channels: int = 1, size: int = 8) -> Tensor:
    return torch.randn(count, channels, size, size, generator=generator(0, "test"))


def fused_embed(network: ConvNet, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Compose the parts of the fused path, with maps and convolutions after the first in ``dtype``."""
    first = network.blocks[0]
    assert isinstance(first, ConvBlock)
    x = F.pad(x, (int(first.conv.padding[0]),) * 4)
    return fused.tail(network, fused.head(x, *fused.moments(first, x)).to(dtype))


# The fused path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 16, 15])
@pytest.mark.parametrize("depth", [2, 3])
def test_fused_equals_plain(channels: int, size: int, depth: int) -> None:
    network = cast(ConvNet, frozen(f"convnet{depth}-w8", channels, size))
    assert fused.supports(network)
    x = pictures(3, channels, size)
    torch.testing.assert_close(fused_embed(network, x, torch.float32), network.embed(x), atol=1e-4, rtol=1e-4)
    network, x = network.double(), x.double()
    exact = fused_embed(network, x, torch.float64)
    torch.testing.assert_close(exact, network.embed(x), atol=1e-10, rtol=1e-10)


def test_fused_survives_flat_and_far_images() -> None:
    """Variance from moments cancels badly where it is small beside the mean: it must not turn negative."""
    network = cast(ConvNet, frozen("convnet2-w8", 3, 16))
    for x in (torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 5.0), 1e-3 * pictures(2, 3, 16) + 4):
        ours, plain = fused_embed(network, x, torch.float32), network.embed(x)
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, plain, atol=1e-2, rtol=1e-2)


def test_fused_in_bf16_is_close() -> None:
    network = cast(ConvNet, frozen("convnet3-w16", 3, 16))
    x = pictures(4, 3, 16)
    plain = network.embed(x)
    half = fused_embed(network, x, torch.bfloat16).float()
    assert (half - plain).norm() < 0.02 * plain.norm()


@pytest.mark.parametrize(
    "name",
    ["mlp", "convnet2-w8-batch", "convnet2-w8-group", "convnet2-w8-swish", "convnet2-w8-maxpool", "lenet"],
)
def test_fused_is_for_the_standard_convnet_only(name: str) -> None:
    assert not fused.supports(frozen(name, 1, 16))


# Passes and precision ---------------------------------------------------------------------------------------


def counting(network: Network) -> list[int]:
    """Record the size of every batch the network is given from now on."""
    sizes: list[int] = []
    embed = network.embed

    def counted(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return embed(x)

    network.embed = counted  # type: ignore[method-assign]
    return sizes


@pytest.mark.parametrize(("compiled", "expected"), [(False, [4, 4, 2, 1]), (True, [4, 4, 4, 1])])
def test_compiled_passes_are_filled_up_and_the_filling_is_dropped(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, expected: list[int]
) -> None:
    monkeypatch.setattr(compiler, "compile_or_eager", lambda function, device, notify: function)
    monkeypatch.setattr(compiler, "why_unavailable", lambda device: None)
    monkeypatch.setattr(fused, "supports", lambda network: False)
    network, x = frozen("convnet2-w8"), pictures(10)
    plain = network.embed(x)
    sizes = counting(network)
    embedder = Embedder(network, 8, CPU, chunk=4, compile=compiled)
    torch.testing.assert_close(embedder.frozen(x), plain)
    torch.testing.assert_close(embedder.frozen(x[:1]), plain[:1])
    assert sizes == expected


def test_losses_may_keep_frozen_features_for_their_gradient() -> None:
    network, x = frozen("convnet2-w8"), pictures(3)
    embedder = Embedder(network, 8, CPU)
    leaf = x.clone().requires_grad_()
    (embedder.differentiable(leaf) * embedder.frozen(x)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0


def test_batch_statistics_are_of_the_whole_batch() -> None:
    network, x = frozen("convnet2-w8-batch"), pictures(10)
    plain = copy.deepcopy(network).embed(x)
    sizes = counting(network)
    torch.testing.assert_close(Embedder(network, 8, CPU, chunk=4).frozen(x), plain)
    assert sizes == [10]


def test_one_embedding_has_a_graph_and_the_other_none() -> None:
    embedder = Embedder(frozen("convnet2-w8"), 8, CPU)
    x = pictures(3).requires_grad_()
    features = embedder.differentiable(x)
    (gradient,) = torch.autograd.grad(features.sum(), x)
    assert gradient.abs().sum() > 0
    assert not embedder.frozen(x).requires_grad
    torch.testing.assert_close(embedder.frozen(x), features.detach())


def test_bf16_comes_back_as_float32_and_close() -> None:
    network, x = frozen("convnet3-w16", 3, 16), pictures(6, 3, 16)
    plain = network.embed(x)
    embedder = Embedder(network, 16, CPU, "bf16")
    for features in (embedder.frozen(x), embedder.differentiable(x)):
        assert features.dtype == torch.float32
        assert 0 < (features - plain).norm() < 0.02 * plain.norm()


def test_the_default_pass_follows_the_size() -> None:
    chunks = [Embedder(frozen("mlp", 3, size), size, CPU).chunk for size in (8, 32, 128)]
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[-1] >= 1


# Compiling --------------------------------------------------------------------------------------------------


def test_without_a_compiler_it_runs_eagerly_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    network, x, said = frozen("convnet2-w8"), pictures(5), []
    embedder = Embedder(network, 8, CPU, compile=True, notify=said.append)
    assert said == ["running without torch.compile: no C++ compiler (g++ or clang++) is on PATH"]
    assert torch.equal(embedder.frozen(x), Embedder(network, 8, CPU).frozen(x))
    embedder.differentiable(x)
    assert len(said) == 1


@pytest.mark.parametrize(("name", "message"), [("convnet2-w8", "\nno luck\nat all"), ("mlp", "")])
def test_where_compiling_fails_it_runs_eagerly_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    def broken(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            raise RuntimeError(message)

        return call

    monkeypatch.setattr(compiler, "why_unavailable", lambda device: None)
    monkeypatch.setattr(torch, "compile", broken)
    network, x, said = frozen(name), pictures(5), []
    embedder = Embedder(network, 8, CPU, compile=True, notify=said.append)
    plain = Embedder(network, 8, CPU)
    for _ in range(2):
        torch.testing.assert_close(embedder.frozen(x), plain.frozen(x))
        assert torch.equal(embedder.differentiable(x), plain.differentiable(x))
    assert said == [f"running without torch.compile: {'no luck' if message else 'RuntimeError'}"]


@pytest.mark.slow
@pytest.mark.skipif(bool(compiler.why_unavailable(CPU)), reason="no C++ compiler on this machine")
def test_compiled_equals_eager_and_fresh_weights_compile_nothing() -> None:
    network, x, said = frozen("convnet2-w8", 1, 16), pictures(6, 1, 16), []
    embedder = Embedder(network, 16, CPU, compile=True, chunk=4, notify=said.append)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
        torch._dynamo.reset()
        torch.testing.assert_close(embedder.frozen(x), network.embed(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(embedder.differentiable(x), network.embed(x), atol=1e-4, rtol=1e-4)
        with torch._dynamo.config.patch(error_on_recompile=True):
            network.load_state_dict(frozen("convnet2-w8", 1, 16, seed=1).state_dict())
            again = embedder.frozen(x[:5])
        torch._dynamo.reset()
    torch.testing.assert_close(again, network.embed(x[:5]), atol=1e-4, rtol=1e-4)
    assert said == []


def test_compiled_passes_are_of_few_sizes_and_hardly_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "why_unavailable", lambda device: None)
    embedder = Embedder(frozen("convnet2-w8"), 8, CPU, chunk=48, compile=True)  # at the first call, if any
    passes = {images: embedder.pass_size(images) for images in range(1, 481)}
    assert len(set(passes.values())) <= 6
    assert all(-images % size < 8 * -(-images // 48) for images, size in passes.items())
    assert (passes[1], passes[8], passes[9], passes[80], passes[480]) == (8, 8, 16, 40, 48)
