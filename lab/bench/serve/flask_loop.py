"""The plain server of the comparison: the same encoder and index behind Flask, one search at a time.

    python -m lab.bench.serve.flask_loop STORE ENCODER PORT

It is Flask's threaded server, with a lock around encoder and index.
"""

import sys
import threading

import torch
from flask import Flask, request

from actors.encoder import load_registered
from actors.retriever import Retriever
from cluster.tables import Store

COLUMNS = ("caption", "width_px", "height_px")


def make_app(store: Store, fingerprint: str) -> Flask:
    """The Flask application."""
    encoder = load_registered(store.encoder(fingerprint))
    retriever = Retriever(store, fingerprint)
    lock, app = threading.Lock(), Flask(__name__)

    @app.post("/v1/search")
    def search() -> dict:
        body = request.get_json()
        with lock:
            vector = encoder.encode_texts([body["query"]])
            rows = retriever.search(vector, body["k"], columns=COLUMNS)[0]
        return {"encoder": fingerprint, "results": rows}

    @app.get("/healthz")
    def healthz() -> dict:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_app(Store(sys.argv[1]), sys.argv[2]).run(port=int(sys.argv[3]), threaded=True)
