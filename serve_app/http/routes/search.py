"""POST /v1/search, and what a page or a program may want to know before it searches."""

import asyncio

from fastapi import Depends, FastAPI, Request, Response

from cluster.profile import Serve
from serve_app.http.models import (
    Examples,
    SearchesResponse,
    SearchResponse,
    SearchResult,
    Taste,
    Tastes,
    search_body,
    search_request,
)
from serve_app.http.routes import client_of, refusals, require_json
from serve_app.search.service import Found, Service


def add(app: FastAPI, service: Service, config: Serve) -> None:
    """Add the routes to the app."""
    request_type = search_request(service.system_names, config.max_k)

    @app.post(
        "/v1/search",
        response_model=SearchResponse | SearchesResponse,
        responses=refusals(400, 401, 403, 404, 408, 410, 413, 415, 422, 429, 503),
        dependencies=[Depends(require_json)],
        summary="Find images for words, an image, or both",
    )
    async def search(
        body: search_body(request_type), request: Request, response: Response
    ) -> SearchResponse | SearchesResponse:
        response.headers["Cache-Control"] = "no-store"
        client, root = client_of(request), request.scope.get("root_path", "")
        searches = [body] if isinstance(body, request_type) else body.searches
        request.state.log["queries"] = [one.query for one in searches]
        found = await asyncio.gather(*(service.search(one, client) for one in searches))
        request.state.log |= {
            "systems": [one.system for one in found],
            "k": [one.k for one in searches],
            "num_results": [len(one.rows) for one in found],
        }
        answers = [answer(one, root) for one in found]
        return answers[0] if isinstance(body, request_type) else SearchesResponse(answers=answers)

    @app.get(
        "/v1/examples",
        response_model=Examples,
        responses=refusals(401, 429),
        summary="Queries worth a try on these images",
    )
    async def examples() -> Examples:
        return Examples(queries=service.examples)

    @app.get(
        "/v1/tastes",
        response_model=Tastes,
        responses=refusals(401, 429),
        summary="Directions in which results can be leaned",
    )
    async def tastes() -> Tastes:
        return Tastes(tastes=[Taste(**named) for named in service.tastes])


def answer(found: Found, root: str) -> SearchResponse:
    """What goes over the wire; `root` is the path that a proxy before us has cut off."""
    results = [
        SearchResult(**row, preview_url=f"{root}/v1/images/{row['image_id']}/preview") for row in found.rows
    ]
    timings = {step: round(value, 3) for step, value in found.timings_ms.items()}
    told = ("search_id", "query", "rephrased", "system", "encoder", "next")
    return SearchResponse(
        **{name: getattr(found, name) for name in told}, results=results, timings_ms=timings
    )
