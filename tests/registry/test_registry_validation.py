"""Configurations: a constructor is the schema, problems are told at once, what is resolved means the same."""

import json
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from diffloom_registry import MISSING, BrokenPlugin, Config, ConfigError, DiffloomError, Kind, Registry


class Denoiser(ABC):  # noqa: B024  nothing to implement: the tests are about constructors
    pass


class Transform(ABC):  # noqa: B024
    pass


class Space:
    pass


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    weights: str | None = Field(None, description="File to load.")
    prediction: Literal["eps", "v"] = "eps"


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Window:
    size: int
    stride: int = 1


class UNet(Denoiser):
    """A U-Net.

    More about it.

    Args:
        multipliers: Widths of the levels,
            relative to the first.
        channels: Not this one: the annotation describes itself.
    """

    def __init__(
        self,
        *,
        channels: Annotated[int, Field(gt=0, description="Width of the first level.")] = 64,
        multipliers: tuple[int, ...] = (1, 2),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        act: Literal["silu", "gelu"] = "silu",
        mode: Mode = Mode.FAST,
        root: Path | None = None,
        day: date | None = None,
        bias: bool = True,
        levels: int | list[int] = 1,
        sizes: dict[str, int] | None = None,
        pair: tuple[int, float] = (1, 1.0),
        window: Window | None = None,
        schema: str = "",
    ) -> None:
        self.arguments = dict(locals())
        if channels == 13:
            raise ValueError("13 is unlucky")
        if channels == 14:
            raise RuntimeError("no such luck")


class Wrap(Denoiser):
    def __init__(
        self,
        *,
        inner: Denoiser,
        space: Space,
        steps: Annotated[list[Transform], Field(min_length=1, description="What to do.")],
        other: Denoiser | None = None,
        named: Mapping[str, Transform] | None = None,
        more: tuple[Transform, ...] = (),
        rest: Sequence[Transform] = (),
    ) -> None:
        self.inner, self.space, self.steps, self.other = inner, space, steps, other
        self.named, self.more, self.rest = named, more, rest


class Flip(Transform):
    """Flip.

    Args:
        axis (int): Which: the last
            default: by counting.
        unknown: Not a parameter.

    Returns:
        axis: Not an argument.
    """

    def __init__(self, *, axis: int = -1) -> None:
        self.axis = axis


class Turn(Flip):
    pass


class Plain(Transform):
    pass


SPACE = Space()


class Placed(Transform):
    def __init__(self, *, given: Space | None, kept: Space = SPACE) -> None:
        self.given, self.kept = given, kept


class Needs(Transform):
    def __init__(self, *, angle: Annotated[int, Field(ge=0, le=360, multiple_of=90)]) -> None:
        self.angle = angle


def make() -> Registry:
    found = Registry(
        [
            Kind("denoiser", f"{__name__}:Denoiser", "denoises", extras=f"{__name__}:Settings"),
            Kind("transform", f"{__name__}:Transform", "changes"),
        ],
        prefix="loomtest",
        services=[f"{__name__}:Space"],
    )
    found.add("denoiser", "unet", UNet)
    found.add("denoiser", "wrap", Wrap)
    for cls in (Flip, Turn, Plain, Placed, Needs):
        found.add("transform", cls.__name__.lower(), cls)
    return found


registry = make()


def problems(kind: str, path: tuple[str | int, ...] = (), /, **data: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        registry.validate(kind, data, path=path)
    assert str(caught.value).splitlines() == [problem.text() for problem in caught.value.problems]
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("channels", -3, "out of range: expected an integer greater than 0, got -3"),
        ("channels", "5", "wrong type: expected an integer greater than 0, got '5'"),
        ("channels", True, "wrong type: expected an integer greater than 0, got true"),
        ("channels", 5.0, "wrong type: expected an integer greater than 0, got 5.0"),
        ("channels", None, "wrong type: expected an integer greater than 0, got null"),
        ("channels", {}, "wrong type: expected an integer greater than 0, got an empty mapping"),
        ("dropout", 1, "out of range: expected a number of at least 0 and less than 1, got 1"),
        ("dropout", float("nan"), "out of range: expected a number of at least 0 and less than 1, got nan"),
        ("multipliers", 3, "wrong type: expected a list of integers, got 3"),
        ("multipliers", "12", "wrong type: expected a list of integers, got '12'"),
        ("act", "silly", "unknown value: expected one of 'silu', 'gelu', got 'silly'; did you mean 'silu'?"),
        ("mode", "slwo", "unknown value: expected one of 'fast', 'slow', got 'slwo'; did you mean 'slow'?"),
        ("root", 3, "wrong type: expected a path or null, got 3"),
        ("bias", 1, "wrong type: expected true or false, got 1"),
        ("levels", "x", "wrong type: expected an integer or a list of integers, got 'x'"),
        ("sizes", [1], "wrong type: expected a mapping to integers or null, got the list [1]"),
        ("pair", [1], "missing: expected a number"),
        ("pair", 1, "wrong type: expected a list of 2 values, got 1"),
        (
            "root",
            object(),
            "wrong type: expected text, a number, true, false, null, a list or a mapping, got",
        ),
        ("chanels", 3, "unknown key: expected one of act, bias, channels, "),
        ("wheights", "a", "did you mean 'weights'?"),
        ("prediction", "vee", "unknown value: expected one of 'eps', 'v', got 'vee'"),
    ],
)
def test_each_wrong_value_is_told_in_plain_words(key: str, value: object, said: str) -> None:
    (line,) = problems("denoiser", ("denoiser",), type="unet", **{key: value})
    assert line.startswith(f"denoiser.{key}")
    assert said in line


@pytest.mark.parametrize(
    ("key", "value", "path", "said"),
    [
        ("multipliers", [1, "a"], "multipliers[1]", "wrong type: expected an integer, got 'a'"),
        ("levels", [1, "a"], "levels[1]", "wrong type: expected an integer, got 'a'"),
        ("sizes", {"a.b": 1.5}, "sizes['a.b']", "wrong type: expected an integer, got 1.5"),
        ("pair", [1, "a"], "pair[1]", "wrong type: expected a number, got 'a'"),
        ("window", {}, "window.size", "missing: expected an integer"),
        ("window", {"size": 1, "strid": 2}, "window.strid", "unknown key: expected one of size, stride; did"),
        ("sizes", {"a": {1: {2}}}, "sizes.a.1", "wrong type: expected text, a number, true, false, null"),
        ("sizes", {(1, 2): 1}, "sizes", "wrong type: expected keys that are text, got the key (1, 2)"),
    ],
)
def test_problems_are_found_at_the_leaves(key: str, value: object, path: str, said: str) -> None:
    (line,) = problems("denoiser", type="unet", **{key: value})
    assert line.startswith(f"{path}: {said}")


def test_a_value_that_contains_itself() -> None:
    value: list[object] = []
    value.append(value)
    (line,) = problems("denoiser", type="unet", multipliers=value)
    assert line.startswith("multipliers[0]: wrong value")
    assert line.endswith("got a value that contains itself")


def test_all_problems_come_at_once() -> None:
    lines = problems(
        "denoiser",
        ("denoiser",),
        type="wrap",
        inner={"type": "unnet"},
        other={"type": "unet", "channels": 0, "wieghts": "x"},
        space={"channels": 3},
        named={"a": {"type": "flip", "axes": 1}, "b": 3},
        more=[{"type": "needs"}, {"type": "needs", "angle": 45}, "flip", {}],
        weights=1,
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "denoiser.weights",
        "denoiser.steps",
        "denoiser.inner.type",
        "denoiser.space",
        "denoiser.other.wieghts",
        "denoiser.other.channels",
        "denoiser.named.a.axes",
        "denoiser.named.b",
        "denoiser.more[0].angle",
        "denoiser.more[1].angle",
        "denoiser.more[2]",
        "denoiser.more[3].type",
    ]
    assert lines[1] == "denoiser.steps: missing: expected a list of transforms of length at least 1"
    assert lines[2] == (
        "denoiser.inner.type: there is no denoiser named 'unnet': expected one of unet, wrap; did you mean 'unet'?"
    )
    assert lines[3].endswith(
        "expected no such key, got a mapping with channels; leave 'space' out: the system provides it"
    )
    assert lines[6] == "denoiser.named.a.axes: unknown key: expected one of axis, type; did you mean 'axis'?"
    assert lines[9] == (
        "denoiser.more[1].angle: wrong value: expected an integer of at least 0 and of at most 360 "
        "and that is a multiple of 90, got 45"
    )
    assert lines[10].endswith("expected a mapping with 'type', a transform, got 'flip'; write {type: flip}")
    assert lines[11].endswith("missing: expected a transform, one of flip, needs, placed, plain, turn")


def test_the_number_of_nested_parts_is_bounded() -> None:
    (line,) = problems("denoiser", type="wrap", steps=[])
    assert line == "steps: wrong length: expected a list of transforms of length at least 1, got an empty list"
    (line,) = problems("denoiser", type="wrap", steps={"a": 1})
    assert line == "steps: wrong type: expected a list of transforms of length at least 1, got a mapping with a"


def test_a_recipe_holds_no_objects_and_no_null_for_a_part_that_is_needed() -> None:
    lines = problems("denoiser", type="wrap", inner=None, other=UNet(), space=Space(), steps=[Flip()])
    assert lines == [
        "inner: wrong type: expected a mapping with 'type', a denoiser, got null",
        "space: wrong type: expected no such key, got an object of type Space; "
        "leave 'space' out: the system provides it",
        "steps[0]: wrong type: expected a mapping with 'type', a transform, got an object of type Flip",
        "other: wrong type: expected a mapping with 'type', a denoiser, got an object of type UNet",
    ]
    (line,) = problems("transform", type="needs", angle=object())
    assert line.startswith("angle: wrong type: expected text, a number")


def test_names_are_text_and_components_are_mappings() -> None:
    assert problems("transform", type=3) == ["type: wrong type: expected the name of a transform, got 3"]
    assert problems("transform", type="flip", axis="1") == ["axis: wrong type: expected an integer, got '1'"]
    with pytest.raises(ConfigError, match="t: wrong type: expected a mapping with 'type', a transform, got 'flip'"):
        registry.validate("transform", "flip", path=("t",))  # type: ignore[arg-type]  # what a recipe may hold
    with pytest.raises(ConfigError, match=r"^1: unknown key|^\[1\]: unknown key"):
        registry.validate("transform", {"type": "flip", 1: 2})  # type: ignore[dict-item]  # what a recipe may hold


def test_a_nested_model_may_not_ignore_unknown_keys() -> None:
    class Loose(BaseModel):
        size: int = 1

    class Part(Transform):
        def __init__(self, *, loose: Loose | None = None) -> None:
            pass

    Part.__init__.__annotations__["loose"] = Loose | None
    with pytest.raises(BrokenPlugin, match="'loose' of its constructor is a model that ignores unknown keys; set ext"):
        registry.add("transform", "part", Part)


def test_recipes_hold_what_yaml_can_say() -> None:
    config = registry.validate(
        "denoiser",
        {
            "type": "unet",
            "multipliers": [1, 2, 4],
            "mode": "slow",
            "root": "a/b",
            "day": date(2024, 2, 29),
            "window": {"size": 3},
            "pair": [2, 3],
            "dropout": 0,
            "schema": "s",
            "weights": "file",
        },
    )
    values = config.values
    assert values["multipliers"] == (1, 2, 4)
    assert (values["mode"], values["root"], values["day"]) == (Mode.SLOW, Path("a/b"), date(2024, 2, 29))
    assert (values["window"], values["pair"], values["schema"]) == (Window(3, 1), (2, 3.0), "s")
    assert values["channels"] == 64
    assert config.extras == Settings(weights="file")
    built = registry.instantiate(config)
    assert isinstance(built, UNet)
    assert built.arguments.items() >= values.items()


leaf = st.fixed_dictionaries({"type": st.just("flip")}, optional={"axis": st.integers()}) | st.just({"type": "plain"})
unets = st.fixed_dictionaries(
    {"type": st.just("unet")},
    optional={
        "channels": st.integers(1, 12),
        "multipliers": st.lists(st.integers()),
        "dropout": st.floats(0, 1, exclude_max=True),
        "mode": st.sampled_from(["fast", "slow"]),
        "root": st.none() | st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1),
        "day": st.dates().map(str),
        "levels": st.integers() | st.lists(st.integers()),
        "sizes": st.dictionaries(st.text(), st.integers()),
        "pair": st.tuples(st.integers(), st.floats(allow_nan=False)).map(list),
        "window": st.fixed_dictionaries({"size": st.integers()}),
        "weights": st.none() | st.text(),
        "prediction": st.sampled_from(["eps", "v"]),
    },
)
denoisers = st.recursive(
    unets,
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("wrap"), "steps": st.lists(leaf, min_size=1)},
        optional={
            "inner": inner,
            "other": st.none() | inner,
            "named": st.none() | st.dictionaries(st.text(), leaf),
            "more": st.lists(leaf),
            "rest": st.lists(leaf),
        },
    ),
    max_leaves=3,
)


@given(denoisers)
def test_what_is_resolved_means_the_same(data: dict[str, object]) -> None:
    config = registry.validate("denoiser", data)
    plain = json.loads(json.dumps(config.resolved()))
    again = registry.validate("denoiser", plain)
    assert again == config
    assert again.resolved() == plain
    assert plain.items() >= {key: value for key, value in data.items() if key == "type"}.items()


def test_infinity_survives() -> None:
    config = registry.validate("denoiser", {"type": "unet", "pair": [1, float("inf")]})
    assert registry.validate("denoiser", config.resolved()) == config


def test_objects_cannot_be_written_down() -> None:
    data = {"type": "wrap", "inner": UNet(), "steps": [{"type": "flip"}]}
    config = registry.validate("denoiser", data, path=("a",), strict=False)
    with pytest.raises(DiffloomError) as caught:
        config.resolved()
    assert str(caught.value) == (
        "a.inner: a part that was handed in as an object cannot be written down: got an object of type UNet; "
        "give it as a mapping with 'type'"
    )


def test_parts_are_injected_by_type_and_asked_for_once() -> None:
    flip = {"type": "flip"}
    config = registry.validate(
        "denoiser",
        {"type": "wrap", "steps": [flip], "other": {"type": "wrap", "steps": [flip], "other": None}},
    )
    assert config.injected == {"inner": Denoiser, "space": Space}
    asked: list[type] = []
    parts: dict[type, object] = {Denoiser: UNet(), Space: Space()}

    def inject(cls: type) -> object:
        asked.append(cls)
        return parts[cls]

    built = registry.instantiate(config, inject)
    assert isinstance(built, Wrap)
    assert isinstance(built.other, Wrap)
    assert built.inner is built.other.inner is parts[Denoiser]
    assert built.space is parts[Space]
    assert built.other.other is None
    assert sorted(cls.__name__ for cls in asked) == ["Denoiser", "Space"]
    assert (built.more, built.named) == ((), None)


def test_what_nothing_provides_is_told_before_anything_is_built() -> None:
    class Counted(Transform):
        made = 0

        def __init__(self) -> None:
            Counted.made += 1

    steps = [{"type": "counted"}]
    with registry.add("transform", "counted", Counted):
        config = registry.validate(
            "denoiser",
            {"type": "wrap", "steps": steps, "other": {"type": "wrap", "steps": steps}},
            path=("d",),
        )
        with pytest.raises(ConfigError) as caught:
            registry.instantiate(config, {Denoiser: UNet()})
    assert Counted.made == 0
    assert [problem.path for problem in caught.value.problems] == [("d", "space"), ("d", "other", "space")]
    assert caught.value.problems[0].text() == (
        "d.space: the denoiser 'wrap' needs a Space and nothing provides one; build it in a system that has a Space"
    )
    with pytest.raises(
        ConfigError, match=r"d.inner: .* needs a denoiser .*; give d.inner as a mapping with 'type', or"
    ):
        registry.instantiate(config)


def test_a_part_that_may_be_absent_is_none_or_the_default() -> None:
    config = registry.validate("transform", {"type": "placed"})
    built, placed = registry.instantiate(config), registry.instantiate(config, {Space: Space()})
    assert isinstance(built, Placed)
    assert isinstance(placed, Placed)
    assert (built.given, built.kept) == (None, SPACE)
    assert placed.given is placed.kept is not SPACE


def test_containers_are_what_the_annotation_says() -> None:
    data = {
        "type": "wrap",
        "steps": [{"type": "flip"}],
        "named": {"a": {"type": "turn"}},
        "more": [{"type": "flip"}],
    }
    config = registry.validate("denoiser", data)
    built = registry.instantiate(config, {Denoiser: UNet(), Space: Space()})
    assert isinstance(built, Wrap)
    assert [type(part) for part in built.steps] == [Flip]
    assert isinstance(built.more, tuple)
    assert built.named is not None
    assert isinstance(built.named["a"], Turn)


def test_children_are_finished_first() -> None:
    config = registry.validate(
        "denoiser", {"type": "wrap", "inner": {"type": "unet", "weights": "w"}, "steps": [{"type": "flip"}]}
    )
    finished: list[tuple[str, str | None]] = []

    def finish(part: Config, built: object) -> None:
        assert type(built) is part.cls
        finished.append((part.name, part.extras.weights if isinstance(part.extras, Settings) else None))

    registry.instantiate(config, {Space: Space()}, finish=finish)
    assert finished == [("unet", "w"), ("flip", None), ("wrap", None)]


def test_build_takes_python_values_and_objects() -> None:
    unet, space = UNet(), Space()
    built = registry.build(
        "denoiser", "wrap", inner=unet, space=space, steps=[Flip(), {"type": "turn"}], more=(Flip(),)
    )
    assert isinstance(built, Wrap)
    assert (built.inner, built.space) == (unet, space)
    assert isinstance(built.steps[1], Turn)
    made = registry.build("denoiser", "unet", multipliers=[1], mode=Mode.SLOW, channels="7", window=Window(2))
    assert isinstance(made, UNet)
    assert (made.arguments["channels"], made.arguments["multipliers"]) == (7, (1,))
    with pytest.raises(
        ConfigError, match="inner: wrong type: expected a mapping with 'type', a denoiser, got an object"
    ):
        registry.build("denoiser", "wrap", inner=Flip(), space=space, steps=[Flip()])
    with pytest.raises(ConfigError, match="space: wrong type: expected an object of type Space, got 3"):
        registry.build("denoiser", "wrap", inner=unet, space=3, steps=[Flip()])


def test_build_refuses_keys_that_nothing_acts_on() -> None:
    with pytest.raises(ConfigError, match="weights: a key of recipes, which nothing here acts on"):
        registry.build("denoiser", "unet", weights="file")


def test_a_constructor_that_raises_is_named() -> None:
    with pytest.raises(ConfigError, match="denoiser 'unet' refuses these values: 13 is unlucky") as refused:
        registry.build("denoiser", "unet", channels=13)
    assert isinstance(refused.value.__cause__, ValueError)
    with pytest.raises(DiffloomError, match="its constructor failed: got RuntimeError: no such luck") as failed:
        registry.instantiate(registry.validate("denoiser", {"type": "unet", "channels": 14}, path=("d",)))
    assert str(failed.value).startswith(f"d: denoiser 'unet' from this process ({__name__}:UNet): ")
    assert isinstance(failed.value.__cause__, RuntimeError)


def test_parameters_are_shown() -> None:
    found = {parameter.name: parameter for parameter in registry.parameters("denoiser", "unet")}
    channels = found["channels"]
    assert (channels.annotation, channels.default, channels.bounds) == ("int", 64, "> 0")
    assert channels.description == "Width of the first level."
    assert found["multipliers"].description == "Widths of the levels, relative to the first."
    assert found["dropout"].bounds == ">= 0, < 1"
    assert found["act"].annotation == "Literal['silu', 'gelu']"
    assert found["levels"].annotation == "int | list[int]"
    assert (found["weights"].common, found["weights"].description) == (True, "File to load.")
    wrap = {parameter.name: parameter for parameter in registry.parameters("denoiser", "wrap")}
    assert wrap["inner"].default is MISSING
    assert [(wrap[name].role, wrap[name].kind) for name in ("inner", "space", "steps")] == [
        ("injected", "denoiser"),
        ("injected", None),
        ("nested", "transform"),
    ]
    assert (wrap["steps"].bounds, wrap["steps"].description) == ("length >= 1", "What to do.")
    assert wrap["named"].annotation == "Mapping[str, Transform] | None"


def test_an_inherited_constructor_keeps_its_description() -> None:
    (axis,) = registry.parameters("transform", "turn")
    assert axis.description == "Which: the last default: by counting."
    assert registry.parameters("transform", "plain") == []


def test_a_parameter_may_not_shadow_a_common_key() -> None:
    class Heavy(Denoiser):
        def __init__(self, *, weights: int = 1) -> None:
            pass

    with pytest.raises(BrokenPlugin, match="parameter 'weights' of its constructor is a key that every denoiser has"):
        registry.add("denoiser", "heavy", Heavy)


def test_the_schema_says_what_validation_does() -> None:
    definitions = registry.schema()["$defs"]
    unet, wrap = definitions["denoiser"]["oneOf"]
    assert (unet["title"], unet["description"]) == ("unet", "A U-Net.")
    assert unet["properties"]["type"] == {"const": "unet"}
    assert unet["additionalProperties"] is False
    assert unet["properties"]["channels"] == {
        "type": "integer",
        "exclusiveMinimum": 0,
        "default": 64,
        "description": "Width of the first level.",
    }
    assert unet["properties"]["weights"]["description"] == "File to load."
    assert unet["properties"]["mode"]["$ref"] == "#/$defs/denoiser.unet.Mode"
    assert definitions["denoiser.unet.Mode"]["enum"] == ["fast", "slow"]
    assert unet["required"] == ["type"]
    assert wrap["required"] == ["type", "steps"]
    assert wrap["properties"]["inner"] == {"$ref": "#/$defs/denoiser"}
    assert wrap["properties"]["other"] == {"anyOf": [{"$ref": "#/$defs/denoiser"}, {"type": "null"}]}
    assert "space" not in wrap["properties"]
    assert wrap["properties"]["steps"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/transform"},
        "minItems": 1,
        "description": "What to do.",
    }
    assert Registry([Kind("denoiser", f"{__name__}:Denoiser", "")], prefix="loomtest").schema() == {
        "$defs": {"denoiser": {"not": {}}}
    }


def test_an_inherited_variadic_constructor_is_no_configuration() -> None:
    class Base(ABC):  # noqa: B024
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.made = (args, kwargs)

    class Part(Base):
        pass

    found = Registry([Kind("base", f"{__name__}:BASE", "")], prefix="loomtest")
    globals()["BASE"] = Base
    try:
        with found.add("base", "part", Part):
            built = found.build("base", "part")
    finally:
        del globals()["BASE"]
    assert isinstance(built, Part)
    assert built.made == ((), {})
