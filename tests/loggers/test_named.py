"""Writers by the names of --log."""

from __future__ import annotations

import pytest

from dsdistill.errors import UserError
from dsdistill.loggers import mlflow, wandb
from dsdistill.loggers.named import loggers_of
from tests.helpers.writers import Mlflow, Wandb, stand_in


def test_names_make_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (Wandb(), Mlflow()):
        stand_in(monkeypatch, module)
    one, other = loggers_of(["wandb:mine", "mlflow"], "digits")
    assert isinstance(one, wandb.WandB)
    assert one._options == {"project": "mine", "name": "digits"}
    assert isinstance(other, mlflow.MLflow)
    assert other._experiment == "dsdistill"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("tensorbord", "unknown logger 'tensorbord'; did you mean 'tensorboard'"),
        ("wandb:", "--log wandb: names no place after the colon; write wandb:NAME, or wandb"),
    ],
)
def test_what_names_no_writer_is_refused(option: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        loggers_of([option], "digits")
