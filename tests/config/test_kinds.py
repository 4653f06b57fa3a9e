"""Options that are one of several dataclasses, to which programs and packages add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from torch import Tensor

from dsdistill.config.kinds import Kinds, without_other_kinds
from dsdistill.config.options import known_keys
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError
from tests.helpers.packages import install


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Shape(ABC):
    kind: str

    @abstractmethod
    def area(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Square(Shape):
    kind: Literal["square"] = "square"
    side: float = 1.0

    def area(self) -> float:
        return self.side**2


SHAPES = Kinds("shape", "dsdistill.shapes", Shape, (Square,), "register_shape")


@dataclass(frozen=True)
class Drawing:
    shape: Annotated[Shape, SHAPES] = field(default_factory=Square)


@dataclass(frozen=True, kw_only=True)
class Disc(Shape):
    kind: Literal["disc"] = "disc"
    radius: float = 1.0

    def area(self) -> float:
        return 3 * self.radius**2


def read(table: dict[str, Any]) -> Drawing:
    drawing = validate(Drawing, table, "option", known_keys(Drawing))
    assert isinstance(drawing, Drawing)
    return drawing


def test_a_registered_kind_joins_the_options() -> None:
    assert read({}).shape == Square()
    assert known_keys(Drawing) == ["shape.kind", "shape.side"]
    with pytest.raises(UserError, match=r"unknown option 'shape.kind' 'disc'; known: square; a program adds"):
        read({"shape": {"kind": "disc"}})
    with SHAPES.restored():
        assert SHAPES.register(Disc) is Disc
        assert read({"shape": {"kind": "disc", "radius": 2}}).shape == Disc(radius=2.0)
        assert known_keys(Drawing) == ["shape.kind", "shape.radius", "shape.side"]
        with pytest.raises(UserError, match=r"unknown option 'shape.radios'; did you mean 'shape.radius'?"):
            read({"shape": {"kind": "disc", "radios": 2}})
        with pytest.raises(UserError, match=r"unknown option 'shape.kind' 'disk'; did you mean 'disc'?"):
            read({"shape": {"kind": "disk"}})
        with pytest.raises(UserError, match=r"'shape.radius' belongs to another kind than the one chosen"):
            read({"shape": {"kind": "square", "radius": 2}})
    with pytest.raises(UserError, match=r"unknown option 'shape.kind' 'disc'"):
        read({"shape": {"kind": "disc"}})


@dataclass(frozen=True)
class Frame:
    drawing: Drawing = field(default_factory=Drawing)
    width: float = 1.0


def test_what_belongs_to_a_kind_that_is_replaced_is_left_out() -> None:
    usual = {"shape": {"kind": "square", "side": 2.0}}
    with SHAPES.restored():
        SHAPES.register(Disc)
        left = {"shape": {"kind": "square"}}
        assert without_other_kinds(usual, {"shape": {"kind": "disc"}}, Drawing) == left
        same: tuple[dict[str, Any], ...] = (
            {"shape": {"side": 3.0}},
            {"shape": {"kind": "square"}},
            {},
            {"shape": 1},
        )
        for chosen in same:
            assert without_other_kinds(usual, chosen, Drawing) == usual
        framed = {"drawing": usual, "width": 2.0}
        deep = {"drawing": {"shape": {"kind": "disc", "radius": 1.0}}}
        assert without_other_kinds(framed, deep, Frame) == {"drawing": left, "width": 2.0}
    assert without_other_kinds(usual, {"shape": {"kind": "disk"}}, Drawing) == usual


class NoDataclass(Square):
    kind: Literal["none"] = "none"  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class NoMethod(Shape):
    kind: Literal["method"] = "method"


@dataclass(frozen=True, kw_only=True)
class NoKind(Shape):
    def area(self) -> float:
        return 0


@dataclass(frozen=True, kw_only=True)
class NoToml(Disc):
    kind: Literal["toml"] = "toml"  # type: ignore[assignment]
    weight: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Taken(Disc):
    kind: Literal["square"] = "square"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            int,
            "register_shape takes a dataclass derived from dsdistill.Shape, and int is none: put @register",
        ),
        (NoDataclass, "and NoDataclass is none: put @register_shape above @dataclass"),
        (NoMethod, "shape NoMethod lacks the method area"),
        (NoKind, "shape NoKind has no name: give it kind: Literal"),
        (NoToml, "shape NoToml has an option of a type that TOML cannot hold"),
        (Taken, "there is another shape named 'square'; choose another name"),
    ],
)
def test_classes_that_cannot_be_registered(added: Any, said: str) -> None:
    with SHAPES.restored(), pytest.raises(UserError, match=said):
        SHAPES.register(added)
    assert SHAPES.names() == ["square"]


PACKAGE = """
from dataclasses import dataclass
from typing import Literal
from tests.config.test_kinds import Shape

@dataclass(frozen=True, kw_only=True)
class Line(Shape):
    kind: Literal["line"] = "line"
    length: float = 1.0

    def area(self):
        return 0.0
"""


def test_entry_points_join_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "line = addition:Line\nbroken = addition:Nothing\nmisnamed = addition:Line"
    with SHAPES.restored():
        install(tmp_path, monkeypatch, PACKAGE, "dsdistill.shapes", points)
        SHAPES.register(Disc)  # what was known before is out of date
        assert read({"shape": {"kind": "line", "length": 2}}).shape.area() == 0
        assert "shape.length" in known_keys(Drawing)
        assert read({"shape": {"kind": "square"}}).shape == Square()
        with pytest.raises(UserError, match=r"shape 'broken' of an installed package .* cannot be loaded"):
            read({"shape": {"kind": "broken"}})
        with pytest.raises(UserError, match=r"entry point 'misnamed' of dsdistill.shapes is of kind 'line'"):
            read({"shape": {"kind": "misnamed"}})
