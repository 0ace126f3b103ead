"""Turns every error of the endpoint into one JSON body: {"error": {"code", "message", "field"}}."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app.errors import ApiError
from serve_app.models import ErrorBody, ErrorDetail

# (last part of the field, pydantic's error type) -> our code. Errors without an entry are an `invalid_value`.
CODES = {
    ("query", "string_too_long"): "query_too_long",
    ("query", "string_unicode"): "not_text",  # such as half of a surrogate pair
    ("query", "invisible"): "empty_query",
    ("k", "greater_than_equal"): "k_out_of_range",
    ("k", "less_than_equal"): "k_out_of_range",
    ("system", "literal_error"): "unknown_system",
}
# pydantic's error type -> the words after the field's name. Other types keep pydantic's message.
MESSAGES = {
    "missing": "is missing",
    "empty_query": "has neither words nor an image: give `query`, `image` or both",
    "one_image": "must have exactly one of `image_id`, `data` and `url`",
    "model_attributes_type": "must be a JSON object",
    "extra_forbidden": "is not a field of this request",
    "string_type": "must be text",
    "string_unicode": "must be Unicode text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "int_type": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "invisible": "must have a visible character",
    "no_date": "must be a time such as 2030-01-31T12:00:00Z, or a date such as 2030-01-31",
    "order": "must not have `{low}` above `{high}`",
    "year": "must be in the years {first} to {last}",
}
TAGS = ("one", "many")  # pydantic's names for the two forms of a search body
GENERAL_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "empty_query": "empty_query",
    "one_image": "one_image",
}
STATUS_CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed_json"}


def install(app: FastAPI) -> None:
    """Handle every refusal of the app. Unexpected exceptions pass on to `logs.RequestLog`."""
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def error_response(
    status: int, code: str, message: str, field: str = "", headers: dict | None = None
) -> JSONResponse:
    """The JSON response for one error."""
    detail = ErrorBody(error=ErrorDetail(code=code, message=message, field=field))
    return JSONResponse(detail.model_dump(), status_code=status, headers=headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    """Report the first error in the request, without repeating the offending value."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return error_response(400, "malformed_json", f"The body is not valid JSON: {reason}.")
    # The client chose the name of an unknown field, which may have any length.
    loc = [part for part in first["loc"][1:] if part not in TAGS]
    field = ".".join(str(part) for part in loc)[:100]
    last = loc[-1] if loc else ""
    code = CODES.get((last, first["type"])) or GENERAL_CODES.get(first["type"], "invalid_value")
    template = MESSAGES.get(first["type"])
    message = template.format(**first.get("ctx", {})) if template else f"is wrong: {first['msg']}"
    return error_response(422, code, f"{f'`{field}`' if field else 'The body'} {message}.", field)


async def _on_http(request: Request, error: Exception) -> Response:
    """Report a refusal; answer OPTIONS with the methods of the path."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    if isinstance(error, ApiError):
        return error_response(error.status_code, error.code, error.detail, error.field, headers)
    if error.status_code == 405 and headers:
        methods = {*headers["Allow"].split(", "), "OPTIONS"}
        headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    messages = {
        400: "The body could not be read as JSON: send it as UTF-8, not compressed.",
        404: f"There is nothing at {request.url.path}: see /docs.",
        405: f"{request.url.path} does not support {request.method}: see /docs.",
    }
    message = messages.get(error.status_code, str(error.detail))
    code = STATUS_CODES.get(error.status_code, "error")
    return error_response(error.status_code, code, message, headers=headers)
