"""The exception that refuses a request."""

from starlette.exceptions import HTTPException


class ApiError(HTTPException):
    """A refusal: status, a stable code for programs, one sentence for people, and the field at fault."""

    def __init__(
        self, status: int, code: str, message: str, field: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.field = code, field
