"""Types and ranges of parameters, read from annotations."""

import ast
import math

import pytest

from harness import domains, registry
from harness.domains import Domain
from harness.types import HarnessError

NAMES = domains.named(ast.parse('Count = Annotated[int, ">= 1", "<= 9"]\nWord = Literal["a", "b"]'))


def read(text, default=1):
    return domains.read(ast.parse(text, mode="eval").body, default, NAMES)


@pytest.mark.parametrize(
    ("annotation", "inside", "outside", "words"),
    [
        ('Annotated[float, ">= 0", "< 1"]', [0.0, 0.999], [1.0, -1e-9, math.nan], "a float >= 0 and < 1"),
        ('Annotated[float, "> 0"]', [5e-324, 1e308], [0.0, -1.0, math.inf], "a finite float > 0"),
        ('Annotated[float, "<= 0.5"]', [0.5, -1e9], [0.51, -math.inf], "a float <= 0.5"),
        ("Count", [1, 9], [0, 10], "an int >= 1 and <= 9"),
        ("Count | None", [1, 9], [0, 10], "an int >= 1 and <= 9 or None"),
        ('Annotated[Count, "divides d"]', [1, 9], [0, 10], "an int >= 1 and <= 9"),
        ("int", [-(2**31) + 1, 2**31 - 1], [2**31, 10**30], "an int"),
        ("Word", ["a"], ["c", ""], "one of a, b"),
        ("bool", [True, False], [], "a bool"),
        ("str", ["", "x"], [], "a str"),
    ],
)
def test_a_domain_holds_what_its_annotation_says_and_says_it_in_words(annotation, inside, outside, words):
    domain = read(annotation)
    assert str(domain) == words
    for value in inside:
        assert domain.checked("p", value) == value
    for value in outside:
        with pytest.raises(HarnessError, match=r"^p = .* is out of range; the parameter is"):
            domain.checked("p", value)


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Domain(int), True),
        (Domain(int), 1.0),
        (Domain(int), None),
        (Domain(float), True),
        (Domain(float), "1"),
        (Domain(float), 1j),
        (Domain(str), 1),
        (Domain(bool), 1),
        (Domain(int, optional=True), "x"),
        (Domain(float), [1.0]),
    ],
)
def test_a_value_of_another_type_is_refused(domain, value):
    with pytest.raises(HarnessError, match=r"^p = .* is an? \w+; the parameter is"):
        domain.checked("p", value)


def test_an_int_serves_as_a_float_and_none_where_it_is_optional():
    found = Domain(float).checked("p", 2)
    assert (found, type(found)) == (2.0, float)
    assert Domain(int, optional=True).checked("p", None) is None


@pytest.mark.parametrize(
    "value", [10**400, 10**5000, -(10**400), "x" * 10_000], ids=["large", "larger", "negative", "text"]
)
def test_a_value_that_is_long_or_cannot_be_printed_is_shortened(value):
    with pytest.raises(HarnessError) as caught:
        Domain(float).checked("p", value)
    assert len(str(caught.value)) < 120


def test_relations_to_the_model_dimension():
    assert read('Annotated[Count, "divides d"]').conflict(3, 8) == "does not divide d = 8"
    assert read('Annotated[Count, ">= d"] | None').conflict(7, 8) == "is below d = 8"
    for domain, value in ((read('Annotated[Count, "divides d"]'), 4), (read('Annotated[Count, ">= d"] | None'), None)):
        assert domain.conflict(value, 8) == ""


def test_a_bound_that_cannot_be_read_is_one_clear_line():
    with pytest.raises(HarnessError, match="'above 0' is not a valid bound"):
        read('Annotated[float, "above 0"]')


def test_an_annotation_that_says_no_more_leaves_the_type_of_the_default():
    assert read("Sequence[int]", "x") == Domain(str)
    assert domains.read(None, 0.5, {}) == Domain(float)


def test_a_component_without_a_constructor_has_the_ranges_of_its_base():
    assert registry.schema("backbones", "hstu_time").domains == registry.schema("backbones", "hstu").domains
    assert registry.schema("adapters", "mlp").domains["dropout"] == Domain(float, ((">=", 0.0), ("<", 1.0)))
