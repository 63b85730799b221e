"""Reads the input of a workflow that anyone may start: malformed, it fails the workflow, not a task for ever."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.exceptions import ApplicationError

from holdfast.contracts import Contract

__all__ = ["parse"]

T = TypeVar("T", bound=Contract)


def parse(model: type[T], given: Any) -> T:
    """Return *given*, JSON as any client may have typed it, as a contract.

    Raises:
        ApplicationError: it does not fit; the message names each field. It fails the workflow.

    """
    try:
        return model.model_validate({} if given is None else given)
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in error['loc']) or 'input'}: {error['msg']}" for error in exc.errors()
        )
        fields = ", ".join(model.model_fields)
        raise ApplicationError(
            f"the input is not a {model.__name__}: {wrong}. Its fields are: {fields}",
            type="InvalidInput",
            non_retryable=True,
        ) from None
