"""What serving.py compares the server to: a bundle behind FastAPI as one writes it, no batching."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from export.edge import Model

app = FastAPI()
model = Model(os.environ["BUNDLE"])


class Body(BaseModel):
    text: str = ""
    texts: list[str] = []


@app.post("/predict")
def predict(body: Body) -> Any:
    if body.texts:
        return [each._asdict() for each in model.predict(body.texts)]
    return model.predict([body.text])[0]._asdict()
