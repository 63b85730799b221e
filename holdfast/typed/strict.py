"""A JSON schema as providers want it in a request: strict where the schema allows. The request builder calls it."""

from __future__ import annotations

import copy
from typing import Any

from holdfast.contracts import AnswerDefinition

__all__ = ["response_format"]

Json = dict[str, Any]

# What strict mode knows (OpenAI's list, the shortest of them). Annotations besides are dropped, limits it does not know
# are told in words, and the type checks them; anything else makes the schema a lenient one.
_KEPT = {
    *("type", "enum", "const", "items", "anyOf", "$ref", "$defs", "properties", "required", "description", "title"),
    *("pattern", "format", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("minItems", "maxItems", "additionalProperties"),
}
_DROPPED = {"default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator", "$comment"}
_TOLD = {"minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties"}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_BESIDES_REF = {"description", "title"}


class _NotStrict(Exception):
    pass


def response_format(answer: AnswerDefinition) -> Json:
    """Return the field `response_format` that asks for this answer.

    Strict where the schema can be written so: every object closed, every member required, references alone. A schema
    that strict mode cannot express, such as a mapping with free keys, is sent as it is and not enforced to the letter.
    """
    try:
        schema, strict = _strict(_rooted(answer.shape)), True
    except _NotStrict:
        schema, strict = answer.shape, False
    return {
        "type": "json_schema",
        "json_schema": {"name": answer.name, "schema": schema, "strict": strict},
    }


def _rooted(schema: Json) -> Json:
    """Return the schema with an object at its root where that was a reference, as a recursive type has it."""
    schema = copy.deepcopy(schema)
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name and name in schema.get("$defs", {}):
        root = copy.deepcopy(schema["$defs"][name])
        return {**root, "$defs": schema["$defs"]}
    return schema


def _strict(schema: Any) -> Any:
    if isinstance(schema, bool) or not isinstance(schema, dict):
        raise _NotStrict
    told = [f"{key}: {value}" for key, value in schema.items() if key in _TOLD]
    if "format" in schema and schema["format"] not in _FORMATS:
        told.append(f"format: {schema['format']}")
    schema = {key: value for key, value in schema.items() if key not in _DROPPED | _TOLD}
    if told:
        schema["description"] = f"{schema.get('description', '')} ({', '.join(told)})".strip()
        if schema.get("format") not in _FORMATS:
            schema.pop("format", None)
    if "oneOf" in schema and "anyOf" not in schema:
        schema["anyOf"] = schema.pop("oneOf")  # a discriminated union: its tags exclude each other anyway
    if "$ref" in schema:
        schema = {key: value for key, value in schema.items() if key not in _BESIDES_REF}
    if set(schema) - _KEPT or ("$ref" in schema and set(schema) - {"$ref", "$defs"}):
        raise _NotStrict
    if not set(schema) & {"type", "enum", "const", "anyOf", "$ref"}:
        raise _NotStrict  # anything at all
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties", False) is not False or not schema.get("properties"):
            raise _NotStrict
        schema["additionalProperties"] = False
        schema["required"] = list(schema["properties"])
    for key in ("properties", "$defs"):
        if key in schema:
            schema[key] = {name: _strict(part) for name, part in schema[key].items()}
    if schema.get("type") == "array":
        schema["items"] = _strict(schema.get("items"))
    if "anyOf" in schema:
        schema["anyOf"] = [_strict(part) for part in schema["anyOf"]]
    return schema
