"""One struct an entry: a mistake in an option names the key, the value found, and the nearest or what is legal."""

from typing import Annotated, Literal

import pytest

from hamflow.errors import ConfigurationError
from hamflow.registry import Auto, Count, Fraction, Options, Positive, Registry, convert

THINGS: Registry = Registry("thing", "hamflow.laws", given=("x",))
OUTER: Registry = Registry("holder", "hamflow.laws")


@THINGS.register("ball")
def ball(x: object, radius: Positive, colour: Literal["red", "green"] = "red", count: Count = 1, speed: Positive | Auto = 1.0):
    return x, radius, colour, count, speed


@THINGS.register("dust")
class Dust(Options):
    density: Fraction = 0.5


@OUTER.register("box")
def box(content: Annotated[dict, THINGS.entry("kind")], label: str = ""):
    return content


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("bal", {}, "`at`: unknown thing 'bal'\n  Fix: Did you mean 'ball'?"),
        ("ball", {"radius": 1.0, "color": "red"}, "unknown key `at.color` of thing 'ball'.*Did you mean 'colour'?"),
        ("ball", {}, "`at.radius` of thing 'ball' is missing"),
        ("ball", {"radius": -1}, "`at.radius` = -1: Expected float > 0"),
        ("ball", {"radius": 1, "colour": "gren"}, "`at.colour` = 'gren'.*Did you mean 'green'?"),
        ("ball", {"radius": 1, "count": 2.0}, "`at.count` = 2.0: Expected int, got float"),
        ("ball", {"radius": 1, "count": True}, "`at.count` = True: Expected int, got bool"),
        ("ball", {"radius": True}, "`at.radius` = True: Expected float, got bool"),
        ("ball", {"radius": 1, "speed": "fast"}, "`at.speed` = 'fast'.*auto"),
        ("ball", {"radius": 1, "x": 1}, "unknown key `at.x`"),
        ("dust", {"density": 1.0}, "`at.density` = 1.0: Expected float < 1"),
        ("dust", {"dense": 1.0}, "Did you mean 'density'?"),
    ],
)
def test_a_mistake_is_named(name, options, told):
    with pytest.raises(ConfigurationError, match=f"(?s){told}"):
        THINGS.check(name, options, "at")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "`at.content` lacks `kind`"),
        ({"kind": "dusk"}, "`at.content.kind`: unknown thing 'dusk'.*'dust'"),
        ({"kind": "dust", "density": 2}, "`at.content.density` = 2"),
        ("dust", "`at.content` = 'dust': Expected object"),
    ],
)
def test_an_entry_within_an_entry_is_checked_too(content, told):
    with pytest.raises(ConfigurationError, match=f"(?s){told}"):
        OUTER.check("box", {"content": content}, "at")


def test_what_is_checked_is_built():
    assert THINGS.build("ball", 7, radius=2, speed="auto") == (7, 2, "red", 1, "auto")
    assert THINGS.build("dust", density=0.25) == Dust(density=0.25)
    assert THINGS.check("dust", {}) == Dust()


def test_a_mapping_names_the_key_at_which_a_mistake_stands():
    assert convert(dict[str, Dust], {"a": {}, "b": {"density": 0}}, "at") == {"a": Dust(), "b": Dust(density=0.0)}
    with pytest.raises(ConfigurationError, match="`at.b.density` = 'x'"):
        convert(dict[str, Dust], {"a": {}, "b": {"density": "x"}}, "at")
