"""The one tree of errors. Anyone may raise and catch these; a message says what happened, why, and what to do next.

`docs/reference/errors.md` is written from here, and draws the tree.
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
    "MemoryRefused",
    "MissingModelKey",
    "MissingSecret",
    "ModelError",
    "ModelRefused",
    "ModelUnavailable",
    "OutputInvalid",
    "PluginFailed",
    "Refused",
    "RunEnded",
    "RunWaits",
    "ScheduleExists",
    "SecretUnavailable",
    "ServerLost",
    "StackBusy",
    "StackError",
    "StackNotRunning",
    "StaleWriter",
    "StorageError",
    "TemporalBinaryNotFound",
    "ThreadFull",
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
    """Something went wrong in Holdfast.

    When: never itself: catch it to catch all of these.
    Do: read the message: it says what happened, why, and what to do next.
    """

    def __init__(self, message: str | None = None) -> None:
        """Use *message*, or the first line of the class's docstring."""
        doc = (self.__class__.__doc__ or "").strip()
        super().__init__(message or (doc.splitlines()[0] if doc else self.__class__.__name__))


class ConfigurationError(HoldfastError):
    """A setting is wrong. Nothing was started.

    When: a setting, an agent, a tool or a signature is declared wrongly, or a server lacks what Holdfast needs.
    Do: fix what the message names, and start again.
    """


class AgentsFileError(ConfigurationError):
    """The agents file could not be loaded.

    When: there is no agents file, it does not load, or two agents in it have one name.
    Do: look at the line the message names. A running stack goes on with the file it loaded before.
    """


class MissingModelKey(ConfigurationError):
    """The model needs an API key that is not set.

    When: the provider's key is not set, and no stand-in is allowed.
    Do: set the variable the message names, or `HOLDFAST_OFFLINE=true` to try things without a model.
    """


class StackError(HoldfastError):
    """A server that Holdfast needs is missing or does not answer. Run `holdfast doctor`.

    When: Temporal, PostgreSQL or a worker does not answer, or refuses.
    Do: run `holdfast doctor`; sending the same message with the same `message_id` again is safe.
    """


class TemporalBinaryNotFound(StackError):
    """No Temporal server was found. Run `holdfast doctor` to see how to get one.

    When: the embedded stack starts, and there is no `temporal` binary, no network to fetch one and no Go to build
    one.
    Do: do one of what the message lists.
    """


class StackBusy(StackError):
    """Another Holdfast stack runs in this folder. Use it, or stop it with `holdfast down`.

    When: a second stack is started in a folder that has one.
    Do: use the one that runs, or `holdfast down`.
    """


class StackNotRunning(StackError):
    """No Holdfast stack runs in this folder. Start one with `holdfast dev`.

    When: a command or `Client.connect()` finds neither a stack in this folder nor settings that name servers.
    Do: start one with `holdfast dev`, or set `TEMPORAL_ADDRESS` and `HOLDFAST_DATABASE_URL`.
    """


class InvalidInput(HoldfastError):
    """The input was refused. Nothing was stored.

    When: an argument does not fit: too long, of the wrong form, not JSON, a file in the way.
    Do: fix what the message names, and send it again.
    """


class UnknownAgent(InvalidInput):
    """No such agent.

    When: no worker has loaded an agent of that name.
    Do: take one of the names in the message, or add it to the agents file.
    """


class UnknownRun(InvalidInput):
    """No such run. `holdfast runs` lists the runs there are.

    When: no run has that id, or more than one begins so.
    Do: `holdfast runs` lists those there are.
    """


class UnknownServer(InvalidInput):
    """No worker has seen such an MCP server or tool. `holdfast mcp list` shows those there are.

    When: `holdfast mcp` is asked about a server or tool that no worker has met.
    Do: `holdfast mcp list` shows those there are.
    """


class UnknownSchedule(InvalidInput):
    """No such schedule. `holdfast schedule list` shows those there are.

    When: there never was such a schedule, or it has ended or was deleted.
    Do: `holdfast schedule list` shows those there are.
    """


class ScheduleExists(InvalidInput):
    """There is a schedule of that name already. Change it, delete it, or choose another name.

    When: a schedule is made under a name that is taken.
    Do: update it, delete it, or choose another name.
    """


class ThreadOwned(InvalidInput):
    """The thread belongs to another agent.

    When: a message for one agent is sent to a thread that another one speaks on.
    Do: send it to the agent the message names, or to a thread of its own.
    """


class ThreadFull(InvalidInput):
    """Too many messages wait on the thread.

    When: a message comes to a thread on which a thousand others wait for their turn.
    Do: send it again later, or to another thread. AskWorkflow does so by itself.
    """


class DecisionRefused(InvalidInput):
    """The decision does not fit what is pending.

    When: an approval, a rejection, a `resolve` or a stop comes too late, names no call that waits, or has arguments
    that do not fit.
    Do: look at the run as it is now: `holdfast show RUN`.
    """


class RunEnded(HoldfastError):
    """The run ended without an answer.

    When: the result is read of a run that failed, was stopped, ran over its budget, went in circles or was refused.
    Do: `.state` says which; the message says why.
    """

    def __init__(self, message: str | None = None, *, state: str = "failed") -> None:
        """Keep the run's final *state* beside the message."""
        super().__init__(message)
        self.state = state


class RunWaits(HoldfastError):
    """The run waits for a person, and nobody here decides.

    When: a test waits for a run's end, and a call needs approval or is in doubt.
    Do: give `approve=` to `run_agent`, or start the run by `run_agent.start` and decide.
    """


class OutputInvalid(HoldfastError):
    """The answer is not of the type it is read as. Its text is kept: read it without a type.

    When: a typed answer is read as a type that it does not fit.
    Do: read it without a type: `.text` is what the model wrote.
    """


class StorageError(HoldfastError):
    """The store refused an operation.

    When: PostgreSQL or long-term memory does not answer, refuses, or has tables of a newer version.
    Do: run `holdfast doctor`. Runs wait until it is back.
    """


class MemoryRefused(StorageError):
    """Long-term memory cannot store this text: the embedding model or the store refused it permanently.

    When: the embedding provider or Qdrant answers 400, 413 or 422, or the text's key belongs to another tenant.
    Do: shorten or change the text. What waited to be remembered is set aside: `outbox.refusal` says why, and the
    text stays there. If every text is refused, nothing is set aside: correct the embedding model or the store.
    """


class StaleWriter(StorageError):
    """Another workflow execution owns this thread now; this one may write no more.

    When: a workflow that was reset or replaced still tries to write to its thread, or continues a run that has ended.
    Do: nothing. The workflow that replaced it continues, and the recorded results of the run are kept.
    """


class EffectError(HoldfastError):
    """The ledger refused a step.

    When: a tool of ours finds that it cannot know whether its change was made.
    Do: look at what it names, then `holdfast resolve`.
    """


class FencedOut(EffectError):
    """A newer owner has taken this call over; its outcome was set aside.

    When: a worker that was slow or frozen finishes a call that another one has taken over.
    Do: nothing: the newer attempt counts; the late outcome is kept in `late_outcomes` for 30 days
    (`HOLDFAST_KEEP_LATE_OUTCOMES`).
    """


class ToolNotStarted(EffectError):
    """The tool's code never began to run, so nothing took effect. Another try may find a free place.

    When: the worker is stopping, all its tool threads are busy, or an MCP server cannot be reached.
    Do: nothing, unless it goes on: then the message says what is full or away.
    """


class SecretUnavailable(ToolNotStarted):
    """A secret store did not answer, so nothing was sent. Another try may do.

    When: a plugin that keeps secrets fails or takes too long; a model call is tried again until it answers.
    Do: look after the store; `holdfast plugins` names those there are.
    """


class ServerLost(EffectError):
    """A tool's server was lost before it answered. Whether the call took effect is not known.

    When: an MCP server dies, hangs or loses its connection amid a call.
    Do: nothing for `pure` tools, and for `keyed` tools until all `attempts` have ended this way; a `once` call, and a
    `keyed` call after its last attempt, is in doubt and waits for `holdfast resolve`.
    """


class ToolResultInvalid(EffectError):
    """The tool ran and its effect stands, but what it returned cannot be kept.

    When: a tool returns what is no JSON, or is too long to be kept.
    Do: fix the tool. The call is done and is not made again.
    """


class ToolAnsweredError(ToolResultInvalid):
    """The call was made, once, and ended with an error that the remote told. It may have taken effect in part.

    When: an MCP server answers a call with an error.
    Do: nothing: the model reads it.
    """


class ModelError(HoldfastError):
    """A model call failed.

    When: a model call fails in a way that nobody foresaw, several times.
    Do: read the run's error, and the worker's log.
    """


class ModelUnavailable(ModelError):
    """The model did not answer; another try may.

    When: 429, 5xx, a stream that was cut, a time-out, no connection.
    Do: wait; after `HOLDFAST_MODEL_PATIENCE` the run fails.
    """

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        """Keep *retry_after*, the seconds the provider asked us to wait, if it named any."""
        super().__init__(message)
        self.retry_after = retry_after


class ModelRefused(ModelError):
    """The provider refused the request.

    When: the provider says no: a wrong key, an unknown model, a parameter it does not take, its content policy.
    Do: fix what the provider names, then send a new message.
    """


class ContextTooLong(ModelRefused):
    """The conversation does not fit the model's context window.

    When: the provider says that the conversation is too long, also after it was compacted.
    Do: set the agent's `window`, or take a model with a larger one.
    """


class Refused(HoldfastError):
    """Raise this in a plugin's hook to refuse. Whoever is refused reads the message.

    When: a plugin does not let a message, a model call, a reply or a tool call pass.
    Do: change what was refused, or the plugin that the message names.
    """


class PluginFailed(Refused):
    """A required plugin failed, so the step it guards failed too.

    When: a plugin that may refuse something, or is declared `required`, raised an exception or timed out three times,
        or could not be called for `HOLDFAST_HOOK_WAIT` seconds because it blocked its own event loop or threads.
    Do: correct the plugin that the message names, or remove it.
    """


class ToolError(HoldfastError):
    """Raise this in a tool to say: refused, and nothing took effect. The model sees the message.

    When: your tool raises it.
    Do: nothing: the model reads the message and goes on.
    """


class MissingSecret(ConfigurationError, ToolError):
    """A secret is named whose value is not set.

    When: a worker starts, or a tool asks for a secret that neither a plugin nor the environment has.
    Do: set the variable that the message names where the workers run, or put it into `.env`.
    """


class ToolArgumentsInvalid(ToolError):
    """The model called the tool with arguments that do not fit its schema.

    When: a model, or a person who edits a call, gives arguments that the tool's schema does not allow.
    Do: nothing: a model reads what is wrong and may call again; a person is asked again.
    """
