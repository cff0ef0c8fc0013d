"""A client of the service's application in the same process."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from genre_lightning.serving.app import create_app
from genre_lightning.serving.options import Limits, ServeOptions
from genre_lightning.serving.service import Service


class Client:
    """Sends requests to a service, each test in an event loop of its own."""

    def __init__(self, served, database):
        self.served = served
        self.options = ServeOptions(served.run.path, database=database)
        self.service = None

    def set(self, **changes):
        limits = {name[6:]: changes.pop(name) for name in list(changes) if name.startswith("limit_")}
        self.options = replace(self.options, limits=Limits(**limits), **changes)

    @asynccontextmanager
    async def open(self):
        self.service = Service(self.options, self.served)
        transport = httpx.ASGITransport(create_app(self.service), raise_app_exceptions=False)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                yield client
        finally:
            self.service.close()

    def request(self, method, path, **options):
        async def once():
            async with self.open() as client:
                return await client.request(method, path, **options)

        return asyncio.run(once())

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body, **options):
        return self.request("POST", path, json=body, **options)
