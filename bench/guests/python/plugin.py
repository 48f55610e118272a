from capwasm_guest import plugin


@plugin
class Bench:
    def add(self, a: int, b: int) -> int:
        return a + b
