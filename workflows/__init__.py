"""Deterministic code only: workflows know activities by name and contract, and import no SDK but Temporal's."""
