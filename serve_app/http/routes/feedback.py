"""POST /v1/feedback: turns what people choose into preferences."""

from fastapi import Depends, FastAPI, Request

from serve_app.http.middleware import rate_limit_group
from serve_app.http.routes import client_name, refusals, require_json
from serve_app.models import FeedbackRequest, FeedbackResponse
from serve_app.search.service import Service


def add(app: FastAPI, service: Service) -> None:
    """Add the route to the app."""

    @app.post(
        "/v1/feedback",
        responses=refusals(400, 401, 408, 413, 415, 422, 429, 503),
        dependencies=[Depends(require_json)],
        summary="Report which image or which answer is better",
    )
    async def feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:
        return await service.feedback(body, client_name(request), rate_limit_group(request.scope))
