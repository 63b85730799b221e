"""The stores: thread context and effect ledger (PostgreSQL), long-term memory (Qdrant); activities may call it."""
