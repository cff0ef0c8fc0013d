"""What a user writes by hand: FastAPI around transformers.pipeline, one request at a time on the device."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from transformers import pipeline

tagger = pipeline("text-classification", model=sys.argv[1], top_k=None, function_to_apply="sigmoid", device="cpu")
app = FastAPI()


@app.post("/v1/tag")
def tag(body: dict[str, str]) -> list[dict[str, object]]:
    return tagger(body["text"], truncation=True)[0]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
