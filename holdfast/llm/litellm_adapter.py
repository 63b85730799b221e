"""LiteLLM behind the model port: the only file that imports it, and only inside functions. The port calls it.

It never tries again (Temporal owns retries), never reaches for the network at import, never takes a cut stream for an
answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from holdfast.errors import ModelError, ModelRefused, ModelUnavailable
from holdfast.ids import storable
from holdfast.llm.models import ModelReply, ModelRequest, OnDelta, Usage, assistant_message
from holdfast.llm.prices import cost_of, has_price, is_pricing
from holdfast.llm.prices import knows_price as is_known
from holdfast.llm.refusals import model_error
from holdfast.llm.rehearsal import rehearse
from holdfast.llm.resolve import key_variables, split_model
from holdfast.llm.streams import Assembly, named_calls

__all__ = ["close", "complete", "context_window", "count_tokens", "knows_price", "supports_schema", "warm"]

_OURS = {"model", "messages", "tools", "stream", "stream_options", "num_retries", "max_retries", "timeout", "api_base"}
_BOTH = {"openai", "azure"}  # whose API takes a schema beside tools; elsewhere LiteLLM forces a tool, or is refused
_HARMLESS = (  # what LiteLLM itself does, and we can do nothing about: (start of the message, category)
    ("Accessing the 'model_(computed_)?fields' attribute on the instance", DeprecationWarning),
    ("Item '.*' on TypedDict class '.*' is using the `ReadOnly` qualifier", UserWarning),
)
_lock = threading.Lock()
_loaded: Any = None
_rehearsed = False


def warm() -> None:
    """Import LiteLLM and rehearse a call (about 6 CPU-seconds the first time). Blocks: call it off the event loop."""
    global _rehearsed
    _module()
    with _lock:
        if _rehearsed:
            return
        _rehearsed = True
    rehearsal = threading.Thread(target=rehearse, args=(complete, close), name="llm-rehearsal")
    rehearsal.start()  # a thread of its own, for this one may have an event loop running
    rehearsal.join()


def _module() -> Any:  # Any: LiteLLM's functions are untyped where we use them
    global _loaded
    with _lock:
        if _loaded is not None:
            return _loaded
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks GitHub for prices at import
        os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it loads a .env it finds beside itself
        import litellm

        litellm.suppress_debug_info = True  # it prints advice to stdout
        litellm.telemetry = False  # pyright: ignore[reportAttributeAccessIssue]  # its module sets it by star import
        litellm.num_retries = 0
        litellm.disable_hf_tokenizer_download = True  # else counting tokens of a Llama reaches for a hub
        # It takes a hundred equal pieces in a row, such as the rule of a table, for an endless loop, each time anew.
        litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize  # type: ignore[attr-defined]
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # we raise what it logs
        _loaded = litellm
        return litellm


def _hush() -> None:
    """Ignore LiteLLM's own warnings: where warnings are errors they would end the call.

    Filters are looked up first, since adding one makes Python show every warning again that was shown already.
    """
    known = {rule[1].pattern for rule in warnings.filters if isinstance(rule[1], re.Pattern)}
    for message, category in _HARMLESS:
        if message not in known:
            warnings.filterwarnings("ignore", message=message, category=category)


async def complete(request: ModelRequest, on_delta: OnDelta | None) -> ModelReply:
    """Answer a request; see `holdfast.llm.port.complete`."""
    litellm = _loaded or await asyncio.to_thread(_module)
    _hush()
    started = time.monotonic()
    try:
        async with asyncio.timeout(request.timeout):
            if on_delta is None:
                reply = await _whole(litellm, request)
            else:
                reply = await _streamed(litellm, request, on_delta)
    except TimeoutError:
        raise ModelUnavailable(
            f"{request.model} did not finish within {request.timeout:g} s. Another try may succeed; "
            "HOLDFAST_MODEL_TIMEOUT allows more time."
        ) from None
    text, calls, usage, finish = reply
    if text is not None:
        text = storable(text)
    calls = [(storable(call_id), storable(name), storable(arguments)) for call_id, name, arguments in calls]
    if finish is None:
        raise ModelUnavailable(f"The stream of {request.model} was cut before its end. Another try may succeed.")
    requests = named_calls(calls, request.messages)
    if usage is None:
        usage = await asyncio.to_thread(_counted, litellm, request, text, calls)
    return ModelReply(
        message=assistant_message(text, requests),
        text=text,
        tool_calls=requests,
        usage=usage,
        cost_usd=await asyncio.to_thread(_cost, litellm, request, usage),  # it may ask a server of one's own
        finish_reason=finish,
        model=request.model,
        latency_s=time.monotonic() - started,
    )


_Parts = tuple[str | None, list[tuple[str, str, str]], Usage | None, str | None]


async def _whole(litellm: Any, request: ModelRequest) -> _Parts:
    try:
        response = await litellm.acompletion(**_arguments(request), stream=False)
    except Exception as exc:
        if (error := _mapped(litellm, exc, request)) is None:
            raise
        raise error from exc
    if not response.choices:
        raise ModelUnavailable(f"{request.model} sent a reply without a choice. Another try may succeed.")
    choice = response.choices[0]
    calls = [
        (call.id or "", call.function.name or "", call.function.arguments or "")
        for call in choice.message.tool_calls or []
    ]
    return choice.message.content or None, calls, _usage(getattr(response, "usage", None)), choice.finish_reason


async def _streamed(litellm: Any, request: ModelRequest, on_delta: OnDelta) -> _Parts:
    assembly = Assembly()
    usage: Usage | None = None
    stream = None
    try:
        stream = await litellm.acompletion(**_arguments(request), stream=True, stream_options={"include_usage": True})
        chunks = aiter(stream)
        while (chunk := await anext(chunks, None)) is not None:
            usage = _usage(getattr(chunk, "usage", None)) or usage
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    assembly.add_text(choice.delta.content)
                    on_delta(choice.delta.content)
                for call in choice.delta.tool_calls or []:
                    assembly.add_call(call)
        # LiteLLM ends a stream that was cut cleanly with a "stop" of its own making; what the provider said is here.
        finish = stream.received_finish_reason or stream.intermittent_finish_reason
    except Exception as exc:
        if (error := _mapped(litellm, exc, request)) is None:
            raise
        raise error from exc
    finally:
        if stream is not None:
            await stream.aclose()
    return assembly.text, assembly.calls, usage, finish


def _arguments(request: ModelRequest) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        name: value for name, value in request.params.items() if name not in _OURS and not is_pricing(name)
    }
    arguments |= {
        "model": request.model,
        "messages": request.messages,
        "timeout": request.timeout,
        "num_retries": 0,
        "max_retries": 0,
    }
    if request.tools:
        arguments["tools"] = request.tools
        arguments["_skip_mcp_handler"] = True  # else LiteLLM imports its proxy in the call, and fails without `mcp`
    for name in ("temperature", "seed", "max_tokens", "api_base"):
        if (value := getattr(request, name)) is not None:
            arguments[name] = value
    if request.response_format is not None:
        arguments["response_format"] = request.response_format
    keys = key_variables(split_model(request.model)[0])
    for name, value in keys.items():
        os.environ.setdefault(name, value)  # a key from .env, where LiteLLM looks for it
    if request.api_base and not keys:
        arguments.setdefault("api_key", "none")  # a server of one's own needs none, the client library insists
    return arguments


def _usage(raw: Any) -> Usage | None:
    if raw is None or not (raw.prompt_tokens or raw.completion_tokens):
        return None
    details = getattr(raw, "prompt_tokens_details", None)
    return Usage(
        input_tokens=raw.prompt_tokens or 0,
        output_tokens=raw.completion_tokens or 0,
        cached_tokens=getattr(details, "cached_tokens", None) or 0,
    )


def _counted(litellm: Any, request: ModelRequest, text: str | None, calls: list[tuple[str, str, str]]) -> Usage:
    """Count the tokens ourselves where a provider reports none, so that a budget still binds."""
    said = (text or "") + "".join(name + arguments for _, name, arguments in calls)
    return Usage(
        input_tokens=count_tokens(request.model, request.messages, request.tools),
        output_tokens=litellm.token_counter(model=request.model, text=said) if said else 0,
    )


def _cost(litellm: Any, request: ModelRequest, usage: Usage) -> float | None:
    if request.price is not None:
        return cost_of(request.price, usage)
    if not is_known(request.model):
        return None
    try:
        prompt, completion = litellm.cost_per_token(
            model=request.model,
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cached_tokens,
        )
    except Exception:  # noqa: BLE001  # a model without a price raises a bare Exception
        return None
    return float(prompt + completion)


def knows_price(model: str) -> bool:
    """Say whether LiteLLM's table prices the model's tokens. Blocks: it may import LiteLLM, or ask a local server."""
    litellm = _module()
    try:
        info = litellm.get_model_info(model)
    except Exception:  # noqa: BLE001  # a model that is not in the table raises a bare Exception
        return False
    return has_price(litellm.model_cost.get(info["key"])) or bool(
        info.get("input_cost_per_token") or info.get("output_cost_per_token")
    )


def count_tokens(model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> int:
    """Count input tokens with the model's tokenizer, or tiktoken's where that would have to be downloaded."""
    return int(_module().token_counter(model=model, messages=messages, tools=tools or None))


def context_window(model: str) -> int | None:
    """Return what LiteLLM's table knows of the model's input window, in tokens."""
    try:
        info = _module().get_model_info(model)
    except Exception:  # noqa: BLE001  # a model that is not in the table raises a bare Exception
        return None
    window: int | None = info.get("max_input_tokens") or info.get("max_tokens")
    return window


def supports_schema(model: str, tools: bool) -> bool:
    """Say what LiteLLM's table knows of `response_format` with a schema."""
    provider = split_model(model)[0]
    return bool(_module().supports_response_schema(model=model)) and (not tools or provider in _BOTH)


async def close() -> None:
    """Close LiteLLM's connections of this event loop, if it was ever imported."""
    import sys

    if "litellm" in sys.modules:
        litellm = _module()
        await litellm.close_litellm_async_clients()
        litellm.in_memory_llm_clients_cache.flush_cache()  # else a later call might be given a closed one


def _mapped(litellm: Any, exc: Exception, request: ModelRequest) -> ModelError | None:
    """Return our error for what LiteLLM raised; None if no provider failed (a caller's `on_delta`, say)."""
    import aiohttp
    import httpx
    import openai

    if isinstance(exc, (httpx.HTTPError, aiohttp.ClientError, OSError)):
        return model_error(None, _cause(exc), model=request.model, api_base=request.api_base)
    if not isinstance(exc, openai.OpenAIError):
        return None
    cause = getattr(exc, "original_exception", None)  # a failure amid a stream is wrapped once more
    if isinstance(exc, litellm.exceptions.MidStreamFallbackError) and isinstance(cause, openai.OpenAIError):
        exc = cause
    status = getattr(exc, "status_code", None)
    chain = _chain(exc)
    if any(isinstance(link, ImportError) for link in chain):
        return ModelRefused(
            f"{request.model} needs a package that is not installed: {_words(exc)} "
            'Install what LiteLLM needs (for the Responses API: pip install "litellm[mcp]"), or use another model.'
        )
    if any(type(link) is openai.OpenAIError for link in chain):
        status = 401  # the client library found no key; LiteLLM calls that a 500
    elif any(isinstance(link, (openai.APIConnectionError, httpx.TransportError)) for link in chain):
        status = None  # nobody answered; LiteLLM calls that a 500
    return model_error(
        status if isinstance(status, int) else None,
        _cause(exc) if status is None else _words(exc),
        model=request.model,
        api_base=request.api_base,
        headers=_headers(exc),
        too_long=isinstance(exc, litellm.ContextWindowExceededError),
    )


def _headers(exc: Exception) -> Mapping[str, str]:
    """Return the response's headers: on a 429 LiteLLM keeps them in an attribute of its own only."""
    for headers in (
        getattr(exc, "litellm_response_headers", None),
        getattr(exc, "headers", None),
        getattr(getattr(exc, "response", None), "headers", None),
    ):
        if headers:
            return dict(headers)
    return {}


def _chain(exc: BaseException) -> list[BaseException]:
    """Return the error and what caused it, outermost first."""
    chain: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _cause(exc: Exception) -> str:
    """Return the words of an error and those of its innermost cause: "Connection error." alone helps nobody."""
    words = _words(exc)
    told = (str(link).strip().rstrip(".") for link in reversed(_chain(exc)))
    inner = next((text for text in told if text), "")
    return words if not inner or inner in words else f"{words} Cause: {inner}."


def _words(exc: Exception) -> str:
    """Return the provider's words without the class names LiteLLM puts before them."""
    words = str(getattr(exc, "message", None) or exc).replace("litellm.", "")
    words = re.sub(r"^(?:\w*(?:Error|Exception)(?:: | - ))+", "", words).strip() or type(exc).__name__
    return words if words.endswith((".", "!", "…")) else f"{words}."
