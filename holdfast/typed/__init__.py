"""Typed answers: from a Python type to a JSON schema, from a model's words back. Agents, activities, clients use it."""

from __future__ import annotations

from holdfast.typed.answers import AnswerType, answer_value, schema_problem
from holdfast.typed.found import NotOneJson, find_json
from holdfast.typed.signature import Input, Output, Signature
from holdfast.typed.strict import response_format

__all__ = [
    "AnswerType",
    "Input",
    "NotOneJson",
    "Output",
    "Signature",
    "answer_value",
    "find_json",
    "response_format",
    "schema_problem",
]
