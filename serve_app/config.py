"""What the search endpoint is told at its start: the fields of the command line and of the Serve YAML."""

from pydantic import BaseModel, ConfigDict, Field

from cluster.profile import Profile, load_profile
from serve_app.http.keys import check_exposure


class ServeArgs(BaseModel):
    """Typed arguments of `serve_app.app:build_app`. What is left empty comes from the profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = Field("mini", description="a shipped profile's name, or the path of a YAML file")
    store: str = Field("", description="LanceDB address of the tables, empty = the profile's")
    host: str = Field("", description="address to listen on, empty = the profile's")
    port: int | None = Field(
        None, ge=0, le=65535, description="port to listen on, 0 = any free one, none = the profile's"
    )
    keys_file: str = Field("", description="file of API keys, `name:key` a line, empty = the profile's")
    num_replicas: int | None = Field(
        None, ge=1, description="copies of the deployment, a fixed count, none = the profile's"
    )
    systems: tuple[str, ...] = Field(
        ("live", "baseline"),
        min_length=1,
        description="aliases of the encoders that answer, the default one first",
    )
    examples: tuple[str, ...] = Field(
        (), description="queries that the page offers, empty = drawn from captions"
    )


def settings(args: ServeArgs) -> Profile:
    """The profile that the arguments name, with their overrides applied.

    Raises:
        UserError: no such profile, a value that it refuses, a wrong keys file, or a host that others reach
            without a keys file.
    """
    serve = {
        "host": args.host or None,
        "port": args.port or None,
        "keys_file": args.keys_file or None,
        "num_replicas": args.num_replicas,
        "max_replicas": args.num_replicas,
    }
    overrides: dict = {"serve": {key: value for key, value in serve.items() if value is not None}}
    if args.store:
        overrides["store"] = args.store
    profile = load_profile(args.profile, **overrides)
    check_exposure(profile.serve.host, profile.serve)
    return profile
