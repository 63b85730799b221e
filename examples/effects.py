"""One tool of each effect class, around a shop. The class says what may happen when a call is cut off half-way."""

from holdfast import Agent, ToolContext, ToolError, tool

PRICES = {"lamp": 40.0, "chair": 85.0}
PAID: dict[str, str] = {}  # stands for a payment provider somewhere else


@tool(effect="pure")
def price(item: str) -> float:
    """Look up the price of an item."""
    # Changes nothing, so it may run again. This is also where a bad request is told to the model.
    if item not in PRICES:
        raise ToolError(f"there is no {item!r}; there are: {', '.join(PRICES)}")
    return PRICES[item]


@tool(effect="local_tx")
async def note(ctx: ToolContext, text: str) -> str:
    """Write a note about the customer."""
    # Commits in the same transaction as the ledger's row: both stand, or neither.
    await ctx.connection.execute("create table if not exists notes (run_id uuid, text text)")
    await ctx.connection.execute("insert into notes values ($1, $2)", ctx.run_id, text)
    return "noted"


@tool(effect="keyed", approval="always")
def charge(ctx: ToolContext, item: str, amount: float) -> str:
    """Charge the customer's card."""
    # The provider honours idempotency keys, so sending it again after a crash charges nobody twice.
    return PAID.setdefault(ctx.idempotency_key, f"charged {amount} for {item}")


def was_shipped(ctx: ToolContext, item: str) -> str | None:
    return PAID.get(f"ship {ctx.idempotency_key}")


@tool(effect="verifiable", lookup=was_shipped, settle=5.0)
def ship(ctx: ToolContext, item: str) -> str:
    """Ship an item to the customer."""
    # The carrier knows no keys but can be asked: after a crash Holdfast waits `settle` seconds, asks, then acts.
    return PAID.setdefault(f"ship {ctx.idempotency_key}", f"{item} is on its way")


@tool(effect="once", approval="always")
def write_letter(text: str) -> str:
    """Send a paper letter."""
    # Nobody can be asked and nothing is deduplicated: cut off half-way, the call is in doubt and a person decides.
    return "the letter is in the post"


shop = Agent(
    name="shop",
    model="openai/gpt-5-mini",
    instructions="Serve the customer. Say the price before you charge it.",
    tools=[price, note, charge, ship, write_letter],
)
