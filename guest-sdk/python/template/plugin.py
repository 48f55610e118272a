"""What __NAME__ does: each method is a function of wit/world.wit."""

from dataclasses import dataclass

from capwasm_guest import Failure, kv, log, plugin


@dataclass
class Greeting:
    text: str
    before: int


@plugin
class Plugin:
    def greet(self, name: str) -> Greeting:
        if not name:
            raise Failure("a name, please")
        count = kv.increment(f"seen/{name}")
        log.info("greeted", name=name)
        return Greeting(f"Hello, {name}!", count - 1)
