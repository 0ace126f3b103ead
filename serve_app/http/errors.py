"""Every error of the endpoint as one JSON body: {"error": {"code", "message", "field"}}."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException


class ErrorDetail(BaseModel):
    """What went wrong, and where."""

    code: str = Field(description="a stable name for programs, such as `empty_query`")
    message: str = Field(description="one sentence for people")
    field: str = Field(description="the field of the request that is at fault, empty when it is none")


class ErrorBody(BaseModel):
    """The body of every answer whose status is 400 or above."""

    error: ErrorDetail


class ApiError(HTTPException):
    """A refusal with a code that programs can rely on."""

    def __init__(
        self, status: int, code: str, message: str, field: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.field = code, field


# (last part of the field, pydantic's error type) -> our code; what is listed nowhere is an `invalid_value`.
CODES = {
    ("query", "string_too_long"): "query_too_long",
    ("query", "string_unicode"): "not_text",  # half of a surrogate pair, say
    ("k", "greater_than_equal"): "k_out_of_range",
    ("k", "less_than_equal"): "k_out_of_range",
    ("system", "literal_error"): "unknown_system",
}
# pydantic's error type -> what stands after the field's name; the rest keeps pydantic's words.
MESSAGES = {
    "missing": "is missing",
    "empty_query": "asks for nothing: give `query`, `image` or both",
    "one_image": "must have exactly one of `image_id`, `data` and `url`",
    "model_attributes_type": "must be a JSON object",
    "extra_forbidden": "is not a field of this request",
    "string_type": "must be text",
    "string_unicode": "must be Unicode text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "year": "must lie in the years {first} to {last}",
}
TAGS = ("one", "many")  # how pydantic names the two forms of a search's body
GENERAL_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "empty_query": "empty_query",
    "one_image": "one_image",
}
STATUS_CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed_json"}


def install(app: FastAPI) -> None:
    """Answer every refusal in our form. Mistakes of ours go on, to `logs.RequestLog`."""
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def body(status: int, code: str, message: str, field: str = "", headers: dict | None = None) -> JSONResponse:
    """The JSON answer for one error."""
    detail = ErrorBody(error=ErrorDetail(code=code, message=message, field=field))
    return JSONResponse(detail.model_dump(), status_code=status, headers=headers)


async def _on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong with the request; the offending value is not echoed."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return body(400, "malformed_json", f"The body is not valid JSON: {reason}.")
    # An unknown field's name is the client's: it may be of any length.
    loc = [part for part in first["loc"][1:] if part not in TAGS]
    field = ".".join(str(part) for part in loc)[:100]
    last = loc[-1] if loc else ""
    code = CODES.get((last, first["type"])) or GENERAL_CODES.get(first["type"], "invalid_value")
    known = MESSAGES.get(first["type"])
    message = known.format(**first.get("ctx", {})) if known else f"is wrong: {first['msg']}"
    return body(422, code, f"{f'`{field}`' if field else 'The body'} {message}.", field)


async def _on_http(request: Request, error: HTTPException) -> JSONResponse:
    headers = dict(error.headers) if error.headers else None
    if isinstance(error, ApiError):
        return body(error.status_code, error.code, error.detail, error.field, headers)
    messages = {
        400: "The body could not be read as JSON.",
        404: f"There is nothing at {request.url.path}: see /docs.",
        405: f"{request.url.path} does not take {request.method}: see /docs.",
    }
    message = messages.get(error.status_code, str(error.detail))
    return body(error.status_code, STATUS_CODES.get(error.status_code, "error"), message, headers=headers)
