"""Processes of their own that need only a part of the package."""

from __future__ import annotations

from pathlib import Path

import dsdistill

LIGHT = f"""
import sys, types
package = types.ModuleType("dsdistill")
package.__path__ = [{str(Path(dsdistill.__file__).parent)!r}]
sys.modules["dsdistill"] = package
"""
"""Lets a program import one room without all that ``import dsdistill`` does: in milliseconds, not seconds."""
