"""Student and expert networks, built by name."""

from __future__ import annotations

from dsdistill.networks.base import Network
from dsdistill.networks.factories import NetworkFactory
from dsdistill.networks.registry import (
    add_network,
    add_networks,
    build_network,
    check_network,
    network_list,
    network_names,
    source_digest,
)

__all__ = [
    "Network",
    "NetworkFactory",
    "add_network",
    "add_networks",
    "build_network",
    "check_network",
    "network_list",
    "network_names",
    "source_digest",
]
