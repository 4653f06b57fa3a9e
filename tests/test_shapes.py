"""Annotated shapes are checked while tests run, and cost nothing in use."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import TypeCheckError

from dsdistill.augment.operators import color
from dsdistill.compute.embedder import Embedder
from dsdistill.networks import build_network
from dsdistill.objectives.distributions import class_sums, mean_discrepancy
from dsdistill.objectives.kernels import Linear, squared_mmd
from tests.helpers.shapes import CHECKED

UNCHECKED = """
import sys
for name in ("jaxtyping", "beartype"):
    sys.modules[name] = None  # importing them raises
import importlib, inspect, pkgutil
import dsdistill, dsdistill.cli
for package in map(importlib.import_module, {packages}):
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        module = importlib.import_module(each.name)
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == each.name:
                plain = getattr(function, "__wrapped__", function)  # of torch.no_grad
                assert plain.__code__.co_filename == module.__file__, function
                assert function is plain or "torch" in function.__code__.co_filename, function
"""


@pytest.mark.slow
def test_the_package_needs_no_checker_and_its_functions_have_no_wrapper() -> None:
    code = UNCHECKED.format(packages=list(CHECKED))
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


def test_wrong_shapes_and_dtypes_fail() -> None:
    assert mean_discrepancy(torch.ones(2, 3), torch.zeros(2, 3)) == 6
    with pytest.raises(TypeCheckError):  # torch itself would broadcast
        mean_discrepancy(torch.ones(2, 3), torch.zeros(1, 3))
    with pytest.raises(TypeCheckError):
        squared_mmd(torch.ones(2, 3), torch.ones(3), Linear())
    with pytest.raises(TypeCheckError):
        class_sums(torch.ones(4, 2), torch.zeros(4, dtype=torch.int32), 3)
    with pytest.raises(TypeCheckError):
        color(torch.ones(4, 1, 2, 2), *(torch.ones(1) for _ in range(3)))
    network = build_network("convnet2-w4", 1, 8, 2).requires_grad_(False)
    with pytest.raises(TypeCheckError):
        Embedder(network, 8, torch.device("cpu")).frozen(torch.ones(1, 8, 8))


def functions() -> Iterator[tuple[str, object]]:
    for package in map(importlib.import_module, CHECKED):
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(each.name)
            for name, value in vars(module).items():
                if inspect.isfunction(value) and value.__module__ == each.name and name[0] != "_":
                    yield f"{each.name}.{name}", value


def test_public_functions_of_tensors_have_shapes() -> None:
    bare = {
        name
        for name, function in functions()
        for annotation in inspect.get_annotations(function).values()
        if annotation in ("Tensor", "Tensor | None")
    }
    assert bare == set()
