"""The agents file that the workers of the trial are given."""

from holdfast import Agent, ToolContext, tool


@tool(effect="pure")
async def order_status(order_id: str) -> str:
    """Look up one order."""
    return f"order {order_id}: delivered damaged, total 40"


@tool(effect="once", approval="always")
async def refund(ctx: ToolContext, order_id: str, amount: float) -> str:
    """Pay money back for an order."""
    return f"refunded {amount} for {order_id} ({ctx.idempotency_key})"


support = Agent(
    "support",
    instructions="Help with orders. Look the order up before you refund anything.",
    tools=[order_status, refund],
    model="offline/extractive",  # named, because on servers of one's own nothing stands in for a missing key
    memory=True,
)
