"""Options of `kallos serve`, which are also the arguments in Serve YAML files."""

from pydantic import Field

from cluster import command
from cluster.profile import Profile
from serve_app.http.keys import check_exposure


class ServeConfig(command.JobConfig):
    """Serve the search over HTTP, with a page."""

    host: str | None = Field(
        default=None, description="address to listen on; default: the profile's serve.host"
    )
    port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="port to listen on, 0 takes any free one; default: the profile's serve.port",
    )
    keys_file: str | None = Field(
        default=None,
        description="file of API keys, one `name:key` per line; default: the profile's serve.keys_file",
    )
    num_replicas: int | None = Field(
        default=None,
        ge=1,
        description="fixed number of replicas; default: between the profile's serve.num_replicas and "
        "serve.max_replicas",
    )
    systems: tuple[str, ...] = Field(
        default=("live", "baseline"),
        min_length=1,
        description="aliases of the encoders that answer, the default one first",
    )
    examples: tuple[str, ...] | None = Field(
        default=None, description="example queries on the page; default: drawn from the captions"
    )


def resolve_profile(config: ServeConfig) -> Profile:
    """The profile of a config, with its options applied.

    Raises:
        UserError: an unknown profile, an invalid value, an invalid keys file, or a host that other machines
            can reach without a keys file.
    """
    profile = command.profile_of(config)
    serve = command.merged(profile.serve, config, max_replicas=config.num_replicas)
    check_exposure(serve.host, serve)
    return profile.model_copy(update={"serve": serve})


def local_address(host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens on the host and port."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
