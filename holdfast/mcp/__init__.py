"""The MCP room: tools of MCP servers as tools of agents. Agents files declare servers; the runtime opens them.

server.py (declare) <- tool.py (one more kind of tool) <- rack.py (servers and pins to tools, in the worker)
rack.py <- line.py (one session, kept up) <- link.py (one session) <- stdio.py, http.py (transports) <- weight.py
offers.py (what a server lists) · arguments.py (JSON schema) · answers.py (results, and what an error proves)
"""

from __future__ import annotations

from holdfast.mcp.server import MCPServer

__all__ = ["MCPServer"]
