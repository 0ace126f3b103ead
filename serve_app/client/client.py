"""The Python client of the search endpoint, typed like its OpenAPI document.

with Client("http://127.0.0.1:8000") as client:
    for result in client.search("red sailboat at sunset", negatives=["people"], k=6).results:
        print(result.score, result.caption)
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import httpx
import tenacity
from pydantic import BaseModel, ValidationError

from serve_app.models import (
    Deleted,
    Diversity,
    ErrorBody,
    ErrorDetail,
    Examples,
    FeedbackResponse,
    Filters,
    Health,
    Heatmap,
    Ready,
    SearchesResponse,
    SearchResponse,
    Tastes,
)

IMAGE_ID = re.compile(r"[0-9a-f]{64}")
STARTING = "teacher_starting"
DEFAULT_WAIT_S = 5.0

Model = TypeVar("Model", bound=BaseModel)
Verdict = Literal["a", "b", "tie"]


class SearchFields(TypedDict, total=False):
    """The fields of a search besides its query. A missing field takes the server's default."""

    image: str | Path | bytes  # bytes or path of an image file, an image_id of the store, or an http(s) URL
    image_weight: float  # share of the image against the words, 0 to 1
    negatives: Sequence[str]  # what not to show, in words
    negative_weight: float  # how strongly to avoid the negatives, 0 to 1
    tastes: Mapping[str, float]  # how far to shift along each taste, -1 to 1
    beauty: float  # how far to move from literal towards beautiful, 0 to 2
    filters: Filters | Mapping[str, Any]  # conditions that every result meets
    diversity: Diversity | Mapping[str, Any]  # prefer results that differ from each other
    cursor: str  # `next` of the previous page
    k: int  # number of results
    system: str  # which system answers


class ClientError(Exception):
    """The server refused a request. `request_id` finds the request in the server's log."""

    def __init__(
        self, status: int, code: str, message: str, field: str, request_id: str, retry_after_s: float | None
    ) -> None:
        """`retry_after_s`: seconds to wait before a retry, None if the server gave none."""
        super().__init__(f"{message} ({status} {code})")
        self.status, self.code, self.message = status, code, message
        self.field, self.request_id, self.retry_after_s = field, request_id, retry_after_s


class Client:
    """A client of one server. A search by the teacher waits while its engines start.

    Every method raises ClientError when the server refuses or is not Kallos, and httpx.RequestError when
    there is no server or the connection breaks.
    """

    def __init__(
        self,
        address: str,
        key: str = "",
        *,
        timeout_s: float = 60.0,
        start_limit_s: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """
        Args:
            address: URL of the server, such as http://127.0.0.1:8000.
            key: an API key, if the server requires one.
            timeout_s: limit of one request, seconds.
            start_limit_s: limit of the total wait for the teacher's engines, seconds.
            transport: sends the requests, None = over the network.
        """
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_s, transport=transport)
        self._while_starting = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "code", "") == STARTING),
            wait=_wait_s,
            stop=tenacity.stop_before_delay(start_limit_s),
            reraise=True,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(self, query: str = "", **fields: Unpack[SearchFields]) -> SearchResponse:
        """Search once: by words, by `image=...`, or both."""
        return self._while_starting(
            self._post, "/v1/search", _body({"query": query, **fields}), SearchResponse
        )

    def searches(self, searches: Sequence[Mapping[str, Any]]) -> list[SearchResponse]:
        """Several searches in one request, `[{"query": ..., "k": ...}, ...]`; answers in the same order."""
        body = {"searches": [_body(fields) for fields in searches]}
        return self._while_starting(self._post, "/v1/search", body, SearchesResponse).answers

    def pages(self, query: str = "", **fields: Unpack[SearchFields]) -> Iterator[SearchResponse]:
        """All pages of a search, in order."""
        while True:
            page = self.search(query, **fields)
            yield page
            if not page.next:
                return
            fields["cursor"] = page.next

    def feedback(
        self,
        kind: Literal["click", "prefer", "blind"],
        search_id: str,
        results: Sequence[str],
        *,
        image_id: str | None = None,
        over: str | None = None,
        other_search_id: str = "",
        other_results: Sequence[str] = (),
        accuracy: Verdict | None = None,
        aesthetics: Verdict | None = None,
        diversity: Verdict | None = None,
    ) -> FeedbackResponse:
        """Report which image or answer is better; `results` are all image_ids of the answer, in order."""
        body = {
            "kind": kind,
            "search_id": search_id,
            "results": list(results),
            "image_id": image_id,
            "over": over,
            "other_search_id": other_search_id,
            "other_results": list(other_results),
            "accuracy": accuracy,
            "aesthetics": aesthetics,
            "diversity": diversity,
        }
        return self._post("/v1/feedback", body, FeedbackResponse)

    def preview(self, image_id: str) -> bytes:
        """The preview of the image: a JPEG whose longer side is at most 256 px."""
        return self._send("GET", f"/v1/images/{image_id}/preview").content

    def why(self, image_id: str, query: str, system: str = "") -> Heatmap:
        """How similar each part of the image is to the query."""
        params = {"query": query, "system": system}
        return self._get(f"/v1/images/{image_id}/why", Heatmap, params)

    def delete(self, image_id: str) -> Deleted:
        """Remove the image from every table and every index."""
        return _parsed(self._send("DELETE", f"/v1/images/{image_id}"), Deleted)

    def examples(self) -> Examples:
        """Example queries for the indexed images."""
        return self._get("/v1/examples", Examples)

    def tastes(self) -> Tastes:
        """Directions in which results can be shifted."""
        return self._get("/v1/tastes", Tastes)

    def healthz(self) -> Health:
        """Whether the server is running, with its systems and limits."""
        return self._get("/healthz", Health)

    def readyz(self) -> Ready:
        """Whether searches can be answered now. Raises ClientError `not_ready` if not."""
        return self._get("/readyz", Ready)

    def _get(self, path: str, model: type[Model], params: dict | None = None) -> Model:
        return _parsed(self._send("GET", path, params=params), model)

    def _post(self, path: str, body: dict, model: type[Model]) -> Model:
        return _parsed(self._send("POST", path, json=body), model)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self._http.request(method, path, **options)
        if response.is_success:
            return response
        raise _client_error(response, _error_detail(response))


def image_input(image: str | Path | bytes) -> dict[str, str]:
    """The field `image` of a request. Bytes and files are uploaded, an image_id or URL is passed on."""
    if isinstance(image, str) and is_reference(image):
        return {"image_id" if IMAGE_ID.fullmatch(image) else "url": image}
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return {"data": base64.b64encode(data).decode("ascii")}


def is_reference(image: str) -> bool:
    """Whether the text is an image_id or a URL, not the path of a file."""
    return bool(IMAGE_ID.fullmatch(image)) or image.startswith(("http://", "https://"))


def _body(fields: Mapping[str, Any]) -> dict[str, Any]:
    body = dict(fields)
    if "image" in body:
        body["image"] = image_input(body["image"])
    for name in ("filters", "diversity"):
        if isinstance(body.get(name), BaseModel):
            body[name] = body[name].model_dump(mode="json", exclude_unset=True)
    return body


def _wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return getattr(error, "retry_after_s", None) or DEFAULT_WAIT_S


def _parsed(response: httpx.Response, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        kind = response.headers.get("content-type", "unknown type")
        message = f"The response ({kind}) is not that of a Kallos server: check the address."
        raise _client_error(
            response, ErrorDetail(code="unexpected_response", message=message, field="")
        ) from None


def _error_detail(response: httpx.Response) -> ErrorDetail:
    try:
        return ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # the response comes from a proxy, or from another server
        message = f"The server returned {response.reason_phrase or response.status_code}."
        if target := response.headers.get("location"):
            message = f"The server redirects to {target}: use that address."
        return ErrorDetail(code="error", message=message, field="")


def _client_error(response: httpx.Response, error: ErrorDetail) -> ClientError:
    wait = response.headers.get("retry-after", "")
    return ClientError(
        status=response.status_code,
        code=error.code,
        message=error.message,
        field=error.field,
        request_id=response.headers.get("x-request-id", ""),
        retry_after_s=float(wait) if wait.isdecimal() else None,
    )
