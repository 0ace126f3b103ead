"""POST /v1/search, and the example queries and tastes that a client can offer before a search."""

import asyncio

from fastapi import Depends, FastAPI, Request, Response

from cluster.profile import Serve
from serve_app.http.routes import client_name, refusals, require_json
from serve_app.models import (
    Examples,
    SearchesResponse,
    SearchResponse,
    SearchResult,
    Taste,
    Tastes,
    search_body,
    search_request,
)
from serve_app.search.service import SearchAnswer, Service


def add(app: FastAPI, service: Service, config: Serve) -> None:
    """Add the routes to the app."""
    request_type = search_request(service.system_names, config.max_k)
    body_type = search_body(request_type)

    @app.post(
        "/v1/search",
        responses=refusals(400, 401, 403, 404, 408, 410, 413, 415, 422, 429, 503),
        dependencies=[Depends(require_json)],
        summary="Search images by words, an image, or both",
    )
    async def search(
        body: body_type,  # pyright: ignore[reportInvalidTypeForm] (a type made at run time)
        request: Request,
        response: Response,
    ) -> SearchResponse | SearchesResponse:
        response.headers["Cache-Control"] = "no-store"
        client, root_path = client_name(request), request.scope.get("root_path", "")
        searches = [body] if isinstance(body, request_type) else body.searches
        request.state.log["queries"] = [one.query for one in searches]
        answers = await asyncio.gather(*(service.search(one, client) for one in searches))
        request.state.log |= {
            "systems": [one.system for one in answers],
            "k": [one.k for one in searches],
            "num_results": [len(one.rows) for one in answers],
        }
        responses = [search_response(one, root_path) for one in answers]
        return responses[0] if isinstance(body, request_type) else SearchesResponse(answers=responses)

    @app.get("/v1/examples", responses=refusals(401, 429), summary="Example queries for these images")
    async def examples() -> Examples:
        return Examples(queries=service.examples)

    @app.get("/v1/tastes", responses=refusals(401, 429), summary="Directions in which results can be shifted")
    async def tastes() -> Tastes:
        return Tastes(tastes=[Taste(**taste) for taste in service.tastes])


def search_response(answer: SearchAnswer, root_path: str) -> SearchResponse:
    """The response for an answer; `root_path` is the path under which a proxy serves the app."""
    results = [
        SearchResult(**row, preview_url=f"{root_path}/v1/images/{row['image_id']}/preview")
        for row in answer.rows
    ]
    timings_ms = {step: round(value, 3) for step, value in answer.timings_ms.items()}
    copied = (
        "search_id",
        "query",
        "query_words",
        "negatives_words",
        "rephrased",
        "system",
        "encoder",
        "next",
    )
    return SearchResponse(
        **{name: getattr(answer, name) for name in copied}, results=results, timings_ms=timings_ms
    )
