"""Serve an exported model over HTTP with FastAPI: python examples/serve.py EXPORT_DIR [--port 8000]

GET /health returns the row, POST /recommend {"histories": [["item id", ...], ...], "k": 10} one answer per history.
"""

import argparse
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import harness

Seconds = Annotated[int, Field(ge=0, le=2**40)]


class Query(BaseModel, extra="forbid"):
    histories: list[Annotated[list[str], Field(max_length=10_000)]] = Field(min_length=1, max_length=512)
    k: int = Field(default=10, ge=1, le=1000, strict=True)
    times: list[list[Seconds]] | None = None  # only for backbones that read timestamps; see docs/serving.md


def app_of(folder: str) -> FastAPI:
    model, app = harness.load_export(folder), FastAPI(title="harness")

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"row": model.config["row"], "items": len(model.ids)}

    @app.post("/recommend")
    def recommend(query: Query) -> list[dict[str, Any]]:
        if unknown := sorted({name for history in query.histories for name in history if name not in model.place}):
            raise HTTPException(422, f"{len(unknown)} item ids are not in the catalogue, such as '{unknown[0]}'.")
        try:
            return [vars(answer) for answer in model.recommend(query.histories, query.k, query.times)]
        except harness.HarnessError as error:
            raise HTTPException(422, str(error)) from error

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve an exported model on loopback.")
    parser.add_argument("folder", help="folder that harness export wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    try:
        app = app_of(options.folder)
    except harness.HarnessError as error:
        raise SystemExit(f"Error: {error}") from error
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")
