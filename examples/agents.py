"""The first page of the README: an order desk that looks up and, if a person allows it, refunds."""

from holdfast import Agent, Budget, ToolContext, tool

ORDERS = {"17": {"status": "delivered damaged", "total": 40.0}}


@tool(effect="pure")
async def order_status(order_id: str) -> dict:
    """Look up one order."""
    return ORDERS[order_id]


@tool(effect="once", approval="always")
async def refund(ctx: ToolContext, order_id: str, amount: float) -> str:
    """Pay money back for an order."""
    return f"refunded {amount} for {order_id} ({ctx.idempotency_key})"


support = Agent(
    name="support",
    model="openai/gpt-5-mini",  # anything LiteLLM knows; with no key: offline/extractive, and it says so
    instructions="Help the customer. Refund only what the order shows.",
    tools=[order_status, refund],
    budget=Budget(usd=0.50, rounds=30),
)
