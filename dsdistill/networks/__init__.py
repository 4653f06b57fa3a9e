"""Student and expert networks, built by name."""

from __future__ import annotations

from dsdistill.networks.base import Network
from dsdistill.networks.registry import build_network, check_network, network_names

__all__ = ["Network", "build_network", "check_network", "network_names"]
