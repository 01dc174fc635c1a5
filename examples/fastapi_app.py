"""A web service in front of a batcher: requests that arrive together run together.

    pip install fastapi uvicorn
    uvicorn --app-dir examples fastapi_app:app
    curl -s localhost:8000/digit -H 'content-type: application/json' -d "$(python -c 'print([7] * 64)')"
    curl -s localhost:8000/internal/readyz; open localhost:8000/internal/statusz in a browser

Every error of inferkit knows its HTTP status: 400 for a wrong input, 429 for a full queue, 504 for one that is late.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

import inferkit

MODEL = Path(__file__).resolve().parent / "digits.onnx"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    model = inferkit.Model.load(MODEL)
    async with inferkit.Batcher(model, max_batch_size=64, max_queue_size=1024, name="digits") as batcher:
        batcher.warm_up()
        app.state.batcher = batcher
        yield


app = FastAPI(title="digits", lifespan=lifespan)
app.mount("/internal", inferkit.health.asgi_app())  # /healthz, /readyz, /metrics, /statusz: not for the world


@app.exception_handler(inferkit.InferkitError)
async def refuse(_: Request, error: inferkit.InferkitError) -> JSONResponse:
    return JSONResponse({"error": type(error).__name__, "detail": str(error)}, status_code=error.http_status)


@app.post("/digit")
async def digit(request: Request, pixels: list[float] = Body(...)) -> dict[str, float | int]:  # noqa: B008
    image = np.asarray(pixels, np.float32)
    probabilities = await request.app.state.batcher.submit(image, timeout=2.0)
    best = int(probabilities.argmax())
    return {"digit": best, "probability": float(probabilities[best])}
