"""Decides which model a name means and whether its key is set; runtime and CLI call it. It never imports LiteLLM."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dotenv import dotenv_values

from holdfast.contracts import AgentDefinition
from holdfast.errors import ConfigurationError, MissingModelKey
from holdfast.llm.models import OFFLINE_MODEL
from holdfast.secrets import SHORTEST_KEY, know
from holdfast.settings import Settings

__all__ = ["KEY_VARIABLES", "key_variables", "model_for", "resolve_model", "split_model"]

KEY_VARIABLES: dict[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "azure": ("AZURE_API_KEY",),
    "azure_ai": ("AZURE_AI_API_KEY",),
    "bedrock": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ROLE_ARN"),
    "cerebras": ("CEREBRAS_API_KEY",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "cohere_chat": ("COHERE_API_KEY", "CO_API_KEY"),
    "databricks": ("DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
    "deepinfra": ("DEEPINFRA_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "fireworks_ai": ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "groq": ("GROQ_API_KEY",),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "mistral": ("MISTRAL_API_KEY",),
    "moonshot": ("MOONSHOT_API_KEY",),
    "nvidia_nim": ("NVIDIA_NIM_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "sambanova": ("SAMBANOVA_API_KEY",),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_TOKEN"),
    "vertex_ai": ("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_PROJECT"),
    "xai": ("XAI_API_KEY",),
}
"""The variables of which one must be set for a provider. A provider that is not listed is let through unchecked."""

_KEYLESS = ("hosted_vllm", "vllm", "ollama", "ollama_chat", "lm_studio", "llamafile", "litellm_proxy")
_BARE = (  # what the name alone tells of the provider
    (re.compile(r"(gpt-|chatgpt-|o\d)"), "openai"),
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gemini"), "gemini"),
    (re.compile(r"(mistral|codestral|magistral)"), "mistral"),
    (re.compile(r"deepseek"), "deepseek"),
    (re.compile(r"grok"), "xai"),
)


def split_model(name: str) -> tuple[str, str]:
    """Return (provider, model) of `provider/model`, `provider:model` or a bare name; provider is '' when unknown."""
    head, colon, tail = name.partition(":")
    if colon and tail and (head in KEY_VARIABLES or head in _KEYLESS or head == "offline"):
        return head, tail
    head, slash, tail = name.partition("/")
    if slash:
        return head, tail
    return next(((provider, name) for pattern, provider in _BARE if pattern.match(name)), ("", name))


def key_variables(provider: str) -> dict[str, str]:
    """Return the provider's key variables that are set: in the environment, else in `.env` here."""
    names = KEY_VARIABLES.get(provider, ())
    found = {name: value for name in names if (value := os.environ.get(name))}
    if not found and names and Path(".env").is_file():
        values = dotenv_values(".env", interpolate=False)
        found = {name: value for name, value in values.items() if name in names and value}
    for name, value in found.items():
        know(name, value, shortest=SHORTEST_KEY)
    return found


def model_for(definition: AgentDefinition, settings: Settings) -> str:
    """Return the model that a worker calls for this agent, the offline stand-in included. Raises as `resolve_model`."""
    return resolve_model(
        definition.model,
        settings,
        embedded=bool(settings.offline),
        api_base=definition.api_base,
        keyed="api_key" in definition.params,
    )


def resolve_model(
    name: str, settings: Settings, *, embedded: bool, api_base: str | None = None, keyed: bool = False
) -> str:
    """Return the model to call, as `provider/model`, for an agent that names *name* (and perhaps an *api_base*).

    `settings.model` overrides the name. With no key for its provider, `offline/extractive` stands in on the embedded
    stack, unless `settings.offline` is False; elsewhere only if it is True. A server of one's own needs no key, and an
    agent that is *keyed* has one of its own.

    Raises:
        MissingModelKey: the key is not set and nothing may stand in; the message names the variable.
        ConfigurationError: the name is empty or is an offline model that does not exist.

    """
    wanted = (settings.model or name).strip()
    provider, model = split_model(wanted)
    if not model:
        raise ConfigurationError(f"Model {wanted!r} is no model's name. Write provider/model, e.g. openai/gpt-5-mini.")
    if provider == "offline":
        if f"offline/{model}" != OFFLINE_MODEL:
            raise ConfigurationError(f"There is no model {wanted!r}. The only offline one is {OFFLINE_MODEL}.")
        return OFFLINE_MODEL
    base = api_base or settings.api_base
    if base and (not provider or (not api_base and provider not in _KEYLESS)):
        provider = "openai"  # the setting names an OpenAI-compatible server for every model
    full = f"{provider}/{model}" if provider else model
    variables = KEY_VARIABLES.get(provider)
    if base or keyed or variables is None or key_variables(provider):
        return full
    if settings.offline if settings.offline is not None else embedded:
        return OFFLINE_MODEL
    raise MissingModelKey(
        f"Model {full} needs a key and {' or '.join(variables[:2])} is not set. Set it in the environment or in .env, "
        f"give an api_base of a server of your own, or name the model {OFFLINE_MODEL}."
    )
