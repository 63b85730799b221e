"""What stands in for a Qdrant server: the client's own local mode behind the few REST calls that Holdfast makes."""

from __future__ import annotations

import sys
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from qdrant_client import QdrantClient, models

NAME = "/collections/{name}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _said(result: Any) -> web.Response:
    return web.json_response({"result": _plain(result), "status": "ok", "time": 0.0})


def application(client: QdrantClient) -> web.Application:
    """Return the server over *client*."""
    routes = web.RouteTableDef()

    @routes.get("/readyz")
    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="all shards are ready")

    @routes.get(NAME + "/exists")
    async def exists(request: web.Request) -> web.Response:
        return _said({"exists": client.collection_exists(request.match_info["name"])})

    @routes.get(NAME)
    async def info(request: web.Request) -> web.Response:
        return _said(client.get_collection(request.match_info["name"]))

    @routes.put(NAME)
    async def create(request: web.Request) -> web.Response:
        wanted = models.CreateCollection(**await request.json())
        try:
            client.create_collection(
                request.match_info["name"],
                vectors_config=wanted.vectors,
                sparse_vectors_config=wanted.sparse_vectors,
            )
        except ValueError as exc:
            return web.json_response({"status": {"error": str(exc)}}, status=409)
        return _said(True)

    @routes.put(NAME + "/index")
    async def index(_: web.Request) -> web.Response:  # the local mode has none
        return _said({"operation_id": 0, "status": "completed"})

    @routes.post(NAME + "/points")
    async def retrieve(request: web.Request) -> web.Response:
        wanted = models.PointRequest(**await request.json())
        return _said(client.retrieve(request.match_info["name"], wanted.ids, with_payload=wanted.with_payload or True))

    @routes.put(NAME + "/points")
    async def upsert(request: web.Request) -> web.Response:
        client.upsert(request.match_info["name"], models.PointsList(**await request.json()).points)
        return _said({"operation_id": 0, "status": "completed"})

    @routes.post(NAME + "/points/query")
    async def query(request: web.Request) -> web.Response:
        wanted = models.QueryRequest(**await request.json())
        return _said(
            client.query_points(
                request.match_info["name"],
                query=wanted.query,
                prefetch=wanted.prefetch,
                query_filter=wanted.filter,
                limit=wanted.limit or 10,
                with_payload=True,
            )
        )

    @routes.post(NAME + "/points/count")
    async def count(request: web.Request) -> web.Response:
        wanted = models.CountRequest(**await request.json())
        return _said(client.count(request.match_info["name"], count_filter=wanted.filter, exact=True))

    made = web.Application(client_max_size=64 * 2**20)
    made.add_routes(routes)
    return made


if __name__ == "__main__":
    web.run_app(application(QdrantClient(path=sys.argv[1])), host="0.0.0.0", port=6333, print=None)
