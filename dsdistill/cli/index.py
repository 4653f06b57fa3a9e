"""What the command line knows without loading torch: keys of --set, names, values of options that take few.

``presets/index.toml`` holds it. ``make index`` writes that file from the code, and a test holds both equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from dsdistill.config.presets import PRESETS
from dsdistill.files import read_toml, replace

PATH = PRESETS / "index.toml"

_HEADING = "# Written by `make index` from the code, for answers that must not wait for torch.\n\n"


def option_keys(command: str) -> list[str]:
    """Return the dotted keys that --set takes in ``distill`` or ``experts``; none for another command."""
    keys: list[str] = _read()["options"].get(command, [])
    return keys


def datasets() -> dict[str, str]:
    """Map every name of a data set to a one-line description, as `dsdistill.data.catalog.names` does."""
    descriptions: dict[str, str] = _read()["datasets"]
    return descriptions


def networks() -> list[str]:
    """Return the names of networks, as `dsdistill.networks.network_names` does."""
    names: list[str] = _read()["networks"]
    return names


def choices(option: str) -> list[str]:
    """Return the values that an option takes, such as ``export --to`` or ``--budget``."""
    values: list[str] = _read()["choices"][option]
    return values


def from_code() -> dict[str, Any]:
    """Return what the file must hold. This imports the whole package."""
    from dsdistill.config.options import known_keys
    from dsdistill.config.recipe import Budget
    from dsdistill.config.storage import Dtype
    from dsdistill.config.transfer import TuningKind
    from dsdistill.data import catalog
    from dsdistill.distillation.config import RunConfig
    from dsdistill.evaluation.baselines import all_names
    from dsdistill.evaluation.pretraining import BASELINES
    from dsdistill.experts.config import ExpertConfig
    from dsdistill.export.run import EXPORTERS
    from dsdistill.importing.registry import FORMATS
    from dsdistill.importing.spaces import SPACES
    from dsdistill.loggers.named import NAMES
    from dsdistill.networks import network_names
    from dsdistill.runtime.config import ComputeConfig

    return {
        "networks": network_names(),
        "datasets": catalog.names(),
        "options": {"distill": known_keys(RunConfig), "experts": known_keys(ExpertConfig)},
        "choices": {
            "--budget": list(get_args(Budget)),
            "--baselines": [*all_names(), *BASELINES],
            "--dtype": list(get_args(Dtype)),
            "--format": ["auto", *FORMATS],
            "--log": list(NAMES),
            "--precision": list(get_args(get_type_hints(ComputeConfig)["precision"])),
            "--to": list(EXPORTERS),
            "--tuning": list(get_args(TuningKind)),
            "export --space": ["network", "unit"],
            "import --space": ["auto", *SPACES],
        },
    }


def write() -> None:
    """Write the file anew."""
    import tomli_w

    replace(PATH, (_HEADING + tomli_w.dumps(from_code())).encode())


def _read_file() -> dict[str, Any]:
    return read_toml(PATH)


_read: Callable[[], dict[str, Any]] = functools.cache(_read_file)
