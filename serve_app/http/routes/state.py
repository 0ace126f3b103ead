"""GET /healthz: whether the process runs. GET /readyz: whether it can answer searches."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from cluster.profile import Serve
from serve_app.errors import ApiError
from serve_app.http.routes import refusals
from serve_app.models import BeautyAxis, Health, Ready, SystemHealth
from serve_app.search.service import Service
from serve_app.search.systems import System


def add(app: FastAPI, service: Service, config: Serve) -> None:
    """Add the routes to the app."""

    @app.get("/healthz", response_model=Health, summary="Whether the server runs, its systems and limits")
    def healthz() -> JSONResponse:
        systems = {
            alias: SystemHealth(
                encoder=system.record.encoder,
                parent=system.record.parent,
                num_rows=_num_rows(system),
                recall_at_10=system.recall_at_10,
                beauty=_axis(service, system),
            )
            for alias, system in service.systems.items()
        }
        health = Health(
            systems=systems,
            suffix=service.suffix,
            max_k=config.max_k,
            max_upload_bytes=config.max_upload_bytes,
            url_images=config.url_images,
            keys_required=bool(config.keys_file),
        )
        return JSONResponse(health.model_dump(), headers={"Cache-Control": "no-store"})

    @app.get("/readyz", responses=refusals(503), summary="Whether searches can be answered now")
    def readyz() -> Ready:
        if reason := service.unready_reason():
            raise ApiError(503, "not_ready", reason)
        return Ready()


def _axis(service: Service, system: System) -> BeautyAxis:
    axis = service.axis(system)
    source = "prompts" if axis is system.prompt_axis else "fitted"
    return BeautyAxis(source=source, strength=axis.strength)


def _num_rows(system: System) -> int | None:
    """None while the store does not respond: `readyz` reports that, and the process is still healthy."""
    try:
        return system.num_rows
    except Exception:  # any error of the store, as in `Service.unready_reason`
        return None
