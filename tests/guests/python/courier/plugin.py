"""A program that knows the standard library: its requests are urllib's own."""

import urllib.error
import urllib.request

from capwasm_guest import plugin


def _answer(request):
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return [str(answer.status), answer.headers.get("X-Kind", ""), answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [str(error.code), error.reason, error.read().decode()]
    except urllib.error.URLError as error:
        return ["URLError", type(error.reason).__name__, str(error.reason)]


@plugin(interface="errands")
class Errands:
    def get(self, url: str) -> list[str]:
        return _answer(url)

    def post(self, url: str, body: bytes) -> list[str]:
        return _answer(urllib.request.Request(url, data=body, headers={"X-Own": "1"}))

    def built(self, url: str) -> list[str]:
        opener = urllib.request.build_opener()
        with opener.open(url) as answer:
            return [line.decode() for line in answer]
