"""The weather of a city: one request with a secret that this plugin never sees, and a cache."""

import json
from dataclasses import dataclass
from urllib.parse import quote

from capwasm_guest import Failure, config, fetch, kv, log, plugin

SERVICE = "https://api.acme.example"
CACHE_SECONDS = 600


@dataclass
class Report:
    city: str
    celsius: float
    summary: str
    cached: bool = False


@plugin
class Weather:
    def __init__(self) -> None:
        # Made at the first call, so capabilities may be used here.
        self.service = config.get("origin", SERVICE)

    def forecast(self, city: str) -> Report:
        city = city.strip()
        if not city or len(city) > 80:
            raise Failure("a city's name has 1 to 80 characters")
        kept = kv.get(f"weather/{city}")
        if kept is not None:
            return Report(city, **json.loads(kept), cached=True)
        with fetch.get(f"{self.service}/v1/weather?city={quote(city)}", secret="acme-token") as answer:
            if answer.status == 404:
                raise Failure(f"no such city: {city}")
            found = answer.raise_for_status().json()
        weather = {"celsius": float(found["celsius"]), "summary": str(found["summary"])}
        kv.set(f"weather/{city}", json.dumps(weather), ttl=CACHE_SECONDS)
        log.info("asked the service", city=city, status=answer.status)
        return Report(city, **weather)
