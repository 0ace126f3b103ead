"""Options of `kallos search`."""

from typing import Annotated

import tyro
from pydantic import BaseModel, ConfigDict, Field


class SearchArgs(BaseModel):
    """Typed arguments of `kallos search`. What is left out takes the server's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: tyro.conf.Positional[str] = Field("", description="what to look for, in words")
    image: str = Field("", description="an image to look for: a file, an image_id, or an http(s) URL")
    negatives: tuple[str, ...] = Field((), description="what not to show, in words")
    system: str = Field("", description="which system answers, such as live or baseline")
    k: Annotated[int | None, tyro.conf.arg(aliases=["-k"])] = Field(None, ge=1, description="images, a count")
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(False, description="print the answer as JSON")
    server: str = Field("", description="address of the server, empty = that of the profile")
    key: str = Field("", description="API key, empty = that of the environment variable KALLOS_KEY")
    profile: str = Field("mini", description="the profile whose host and port are asked")
