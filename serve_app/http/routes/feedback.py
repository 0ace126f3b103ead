"""POST /v1/feedback: what people choose becomes preferences."""

from fastapi import Depends, FastAPI, Request

from serve_app.http.middleware import origin_of
from serve_app.http.models import FeedbackRequest, FeedbackResponse
from serve_app.http.routes import client_of, refusals, require_json
from serve_app.search.service import Service


def add(app: FastAPI, service: Service) -> None:
    """Add the route to the app."""

    @app.post(
        "/v1/feedback",
        response_model=FeedbackResponse,
        responses=refusals(400, 401, 408, 413, 415, 422, 429),
        dependencies=[Depends(require_json)],
        summary="Tell which image or which answer is better",
    )
    async def feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:
        return await service.feedback(body, client_of(request), origin_of(request.scope))
