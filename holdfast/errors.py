"""The one tree of errors. Anyone may raise and catch these; a message says what happened, why, and what to do next.

HoldfastError
├── ConfigurationError          settings or an agents file are wrong: nothing was started
│   ├── AgentsFileError         the agents file could not be loaded
│   └── MissingModelKey         a model was named whose key is not set
├── StackError                  a server is missing, busy or does not answer
│   ├── TemporalBinaryNotFound
│   ├── StackBusy               another process holds this folder's stack
│   └── StackNotRunning
├── InvalidInput                a caller's input was refused; nothing was stored
│   ├── UnknownAgent
│   ├── UnknownRun
│   ├── UnknownServer           no worker has seen an MCP server or tool of that name
│   ├── UnknownSchedule
│   ├── ScheduleExists          there is a schedule of that name already
│   ├── ThreadOwned             the thread belongs to another agent
│   └── DecisionRefused         a decision does not fit what is pending
├── RunEnded                    the run ended without an answer
├── RunWaits                    the run waits for a person (tests: nobody there decides)
├── OutputInvalid               there is an answer, but not of the type it is read as
├── StorageError
│   └── StaleWriter             another workflow execution owns the thread now
├── EffectError
│   ├── FencedOut               a newer owner has taken this call over
│   ├── ToolNotStarted          the tool's code never began to run: nothing took effect
│   ├── ServerLost              a tool's server was lost before it answered: nobody knows whether it took effect
│   └── ToolResultInvalid       the tool ran, its effect stands, but its result cannot be kept
│       └── ToolAnsweredError   the call was made and ended with an error of the remote's own
├── ModelError
│   ├── ModelUnavailable        worth another try (429, 5xx, cut stream, time-out)
│   ├── ModelRefused            the provider refused the request: another try will not help
│   └── ContextTooLong
└── ToolError                   raise it in a tool: refused, and nothing took effect
    └── ToolArgumentsInvalid
"""

from __future__ import annotations

__all__ = [
    "AgentsFileError",
    "ConfigurationError",
    "ContextTooLong",
    "DecisionRefused",
    "EffectError",
    "FencedOut",
    "HoldfastError",
    "InvalidInput",
    "MissingModelKey",
    "ModelError",
    "ModelRefused",
    "ModelUnavailable",
    "OutputInvalid",
    "RunEnded",
    "RunWaits",
    "ScheduleExists",
    "ServerLost",
    "StackBusy",
    "StackError",
    "StackNotRunning",
    "StaleWriter",
    "StorageError",
    "TemporalBinaryNotFound",
    "ThreadOwned",
    "ToolAnsweredError",
    "ToolArgumentsInvalid",
    "ToolError",
    "ToolNotStarted",
    "ToolResultInvalid",
    "UnknownAgent",
    "UnknownRun",
    "UnknownSchedule",
    "UnknownServer",
]


class HoldfastError(Exception):
    """Something went wrong in Holdfast."""

    def __init__(self, message: str | None = None) -> None:
        """Use *message*, or the first line of the class's docstring."""
        doc = (self.__class__.__doc__ or "").strip()
        super().__init__(message or (doc.splitlines()[0] if doc else self.__class__.__name__))


class ConfigurationError(HoldfastError):
    """A setting is wrong. Nothing was started."""


class AgentsFileError(ConfigurationError):
    """The agents file could not be loaded."""


class MissingModelKey(ConfigurationError):
    """The model needs an API key that is not set."""


class StackError(HoldfastError):
    """A server that Holdfast needs is missing or does not answer. Run `holdfast doctor`."""


class TemporalBinaryNotFound(StackError):
    """No Temporal server was found. Run `holdfast doctor` to see how to get one."""


class StackBusy(StackError):
    """Another Holdfast stack runs in this folder. Use it, or stop it with `holdfast down`."""


class StackNotRunning(StackError):
    """No Holdfast stack runs in this folder. Start one with `holdfast dev`."""


class InvalidInput(HoldfastError):
    """The input was refused. Nothing was stored."""


class UnknownAgent(InvalidInput):
    """No such agent."""


class UnknownRun(InvalidInput):
    """No such run. `holdfast runs` lists the runs there are."""


class UnknownServer(InvalidInput):
    """No worker has seen such an MCP server or tool. `holdfast mcp list` shows those there are."""


class UnknownSchedule(InvalidInput):
    """No such schedule. `holdfast schedule list` shows those there are."""


class ScheduleExists(InvalidInput):
    """There is a schedule of that name already. Change it, delete it, or choose another name."""


class ThreadOwned(InvalidInput):
    """The thread belongs to another agent."""


class DecisionRefused(InvalidInput):
    """The decision does not fit what is pending."""


class RunEnded(HoldfastError):
    """The run ended without an answer."""

    def __init__(self, message: str | None = None, *, state: str = "failed") -> None:
        """Keep the run's final *state* beside the message."""
        super().__init__(message)
        self.state = state


class RunWaits(HoldfastError):
    """The run waits for a person, and nobody here decides."""


class OutputInvalid(HoldfastError):
    """The answer is not of the type it is read as. Its text is kept: read it without a type."""


class StorageError(HoldfastError):
    """The store refused an operation."""


class StaleWriter(StorageError):
    """Another workflow execution owns this thread now; this one may write no more."""


class EffectError(HoldfastError):
    """The ledger refused a step."""


class FencedOut(EffectError):
    """A newer owner has taken this call over; its outcome was set aside."""


class ToolNotStarted(EffectError):
    """The tool's code never began to run, so nothing took effect. Another try may find a free place."""


class ToolResultInvalid(EffectError):
    """The tool ran and its effect stands, but what it returned cannot be kept."""


class ToolAnsweredError(ToolResultInvalid):
    """The call was made, once, and ended with an error that the remote told. It may have taken effect in part."""


class ServerLost(EffectError):
    """A tool's server was lost before it answered. Whether the call took effect is not known."""


class ModelError(HoldfastError):
    """A model call failed."""


class ModelUnavailable(ModelError):
    """The model did not answer; another try may."""

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        """Keep *retry_after*, the seconds the provider asked us to wait, if it named any."""
        super().__init__(message)
        self.retry_after = retry_after


class ModelRefused(ModelError):
    """The provider refused the request."""


class ContextTooLong(ModelRefused):
    """The conversation does not fit the model's context window."""


class ToolError(HoldfastError):
    """Raise this in a tool to say: refused, and nothing took effect. The model sees the message."""


class ToolArgumentsInvalid(ToolError):
    """The model called the tool with arguments that do not fit its schema."""
