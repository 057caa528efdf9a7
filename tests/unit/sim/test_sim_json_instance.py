"""The smallest instances of JSON schemas: valid where they are made, and refused where they cannot be."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.engines.sim.core import SimRefusedError
from neurogate.engines.sim.json_instance import instance

NODE = {
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}
    },
    "$ref": "#/$defs/node",
    "required": ["next"],
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "[sim]"),
        (True, "[sim]"),
        ({"type": "object"}, {}),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        ({"required": ["a"]}, {"a": "[sim]"}),
        ({"properties": {"a": {"type": "null"}}, "minProperties": 2}, {"a": None, "p0": "[sim]"}),
        ({"type": ["string", "null"]}, "[sim]"),
        ({"type": "string", "maxLength": 2}, "[s"),
        ({"type": "string", "minLength": 7}, "[sim].."),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "format": "unheard-of"}, "[sim]"),
        ({"type": "string", "pattern": "^[0-9]{5}$"}, "00000"),
        ({"pattern": "^a+$", "minLength": 4}, "aaaa"),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "exclusiveMaximum": 0}, -2),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "integer", "minimum": 1.5}, 2),
        ({"type": "number", "minimum": 1.5}, 1.5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"exclusiveMinimum": 0, "multipleOf": 0.5}, 0.5),
        ({"maximum": -3}, -5),
        ({"type": "array"}, []),
        ({"items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"prefixItems": [{"const": 1}], "minItems": 2}, [1, "[sim]"]),
        ({"enum": ["red", "green"]}, "red"),
        ({"enum": ["red", 2, None], "type": ["integer", "null"]}, 2),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 0),
        ({"allOf": [{"required": ["a"], "properties": {"a": {"const": 1}}}, {"required": ["b"], "properties": {}}]},
         {"a": 1, "b": "[sim]"}),
        ({"allOf": [True, {"type": "integer"}]}, 0),
        ({"allOf": [{"minimum": 2, "maximum": 9, "title": "a"}, {"minimum": 4, "maximum": 8, "title": "b"}]}, 4),
        ({"required": ["a"], "properties": {"a": {"minimum": 1}}, "allOf": [{"properties": {"a": {"minimum": 3}}}]},
         {"a": 3}),
        (NODE, {"next": None}),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 7}}}, 7),
    ],
)  # fmt: skip
def test_an_instance_is_the_smallest_that_the_schema_allows(schema: Any, expected: Any) -> None:
    made = instance(schema)
    assert made == expected
    jsonschema.validate(made, schema)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (False, "allows nothing"),
        (3, "is no schema"),
        ({"type": "thing"}, "does not exist"),
        ({"type": []}, "is no list with anything in it"),
        ({"not": {}}, "`not`"),
        ({"enum": []}, "lists no value"),
        ({"enum": ["a"], "type": "integer"}, "lists no value"),
        ({"enum": ["a"], "minLength": 2}, "$.minLength"),
        ({"const": 1, "enum": [True]}, "lists no value"),
        ({"anyOf": "x"}, "$.anyOf"),
        ({"allOf": "x"}, "$.allOf"),
        ({"allOf": [3]}, "$.allOf"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "several of it"),
        ({"$ref": "http://other"}, "not within"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$ref": "#"}, "refers to itself"),
        ({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}, "too large"),
        ({"type": "object", "required": [1]}, "required"),
        ({"type": "object", "properties": 1}, "properties"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "$.a: allows nothing"),
        ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "more properties"),
        ({"type": "object", "patternProperties": {}}, "patternProperties"),
        ({"type": "array", "minItems": -1}, "no count"),
        ({"type": "array", "minItems": 10**9}, "too large"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "more items"),
        ({"type": "array", "minItems": 2, "uniqueItems": True}, "unique"),
        ({"type": "array", "prefixItems": 1}, "prefixItems"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "length"),
        ({"type": "string", "pattern": "("}, "regular expression"),
        ({"type": "string", "pattern": "^zq{9}$"}, "nothing that is known"),
        ({"type": "integer", "minimum": "x"}, "no number"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no number"),
        ({"type": "integer", "multipleOf": 0.3}, "multipleOf"),
        ({"type": "number", "multipleOf": -1}, "negative"),
        ({"type": "number", "exclusiveMaximum": 1, "minimum": 1}, "no number"),
    ],
)
def test_what_cannot_be_satisfied_is_refused_and_the_place_named(schema: Any, told: str) -> None:
    with pytest.raises(SimRefusedError) as caught:
        instance(schema)
    assert caught.value.status == 400
    assert told in str(caught.value)


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
keys = st.sampled_from(
    ["type", "properties", "required", "items", "minItems", "maxItems", "enum", "const", "anyOf", "allOf", "$ref",
     "minimum", "exclusiveMinimum", "maximum", "multipleOf", "minLength", "maxLength", "additionalProperties", "a"]
)  # fmt: skip
values = (
    st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null", "#", "#/properties/a"])
    | scalars
)
schemas = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))


@settings(max_examples=400, deadline=None)
@given(schemas)
def test_whatever_is_called_a_schema_gets_an_instance_of_it_or_a_refusal(schema: Any) -> None:
    try:
        made = instance(schema)
    except SimRefusedError:
        return
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return  # what an instance of no schema is, nobody can say
    if "$ref" not in str(schema):  # some of those that are made up cannot be resolved by the validator
        jsonschema.Draft202012Validator(schema).validate(made)
