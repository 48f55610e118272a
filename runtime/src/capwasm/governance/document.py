"""A policy as a page for developers of plugins: what they may do here, and how to ask for more.

Made of what the runtime itself decides by.  The same policy gives the same page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from capwasm._words import kebab
from capwasm.capability import Capability, Risk
from capwasm.grants._document import limit_units
from capwasm.grants.policy import Policy, Rule
from capwasm.lattice import Clause
from capwasm.limits import CEILING, DEFAULTS, Limits

from .catalogue import Entry, catalogue
from .pages import Block, Code, Grid, Heading, Items, Mono, Page, Text
from .published import in_words, settings

__all__ = ["policy_page"]

_WHO: Final = {
    Risk.LOW: "the policy consents by itself",
    Risk.MEDIUM: "the policy consents by itself",
    Risk.HIGH: "a person agrees",
}
# Tables that a developer works with, and those that would tell an attacker what to stay below.
_TABLES: Final = {"updates": "New versions", "review": "Review"}
_INTERNAL: Final = {
    "strikes": "Misbehaviour",
    "revocation": "Revocation",
    "scan": "Scans",
    "audit": "Audit",
}


def policy_page(
    policy: Policy, capabilities: Sequence[Capability[Any, Any]], *, internal: bool = False
) -> Page:
    """The page.

    Args:
        policy: as parsed with the same `capabilities`.
        capabilities: those that there are.
        internal: for the operator's own people: also what lies where on the host.
    """
    maker = _Maker(policy, capabilities, internal=internal)
    return Page("What plugins may do here", tuple(maker.blocks()))


class _Maker:
    def __init__(
        self, policy: Policy, capabilities: Sequence[Capability[Any, Any]], *, internal: bool
    ) -> None:
        self.policy = policy
        self.capabilities = capabilities
        self.internal = internal

    def blocks(self) -> Iterator[Block]:
        yield from self._head()
        yield from self._how()
        yield from self._plugins()
        yield from self._denied()
        yield from self._limits()
        yield from self._others()
        yield from self._ask()
        yield from self._catalogue()

    def _head(self) -> Iterator[Block]:
        policy = self.policy
        rows: list[tuple[Text | Mono, ...]] = [
            (Text("Answers for it"), Text(policy.owner or "nobody is named")),
            (
                Text("Is looked at again by"),
                Text(policy.review_by.isoformat() if policy.review_by else "no day is set"),
            ),
        ]
        if (
            refuses := policy.governance(policy.review_by).refuses_from
            if policy.review_by
            else None
        ):
            rows.append((Text("Nothing is loaded from"), Text(f"{refuses}, unless it was")))
        if self.internal:
            rows.append((Text("File"), Mono(policy.source)))
            rows.append((Text("SHA-256"), Mono(policy.digest)))
            yield Items((Text("Internal: this page says where things lie on the host."),))
        yield Grid(("About", "This policy"), tuple(rows))
        if not self.internal:
            yield Text(
                "Left out are where things lie on the host, its networks, values of settings, and what"
                " is scanned, counted and kept."
            )

    def _how(self) -> Iterator[Block]:
        roles = ", ".join(sorted(self.policy.requirement.any_of))
        yield Heading(2, "How a permission comes about")
        yield Items(
            (
                Text("The plugin's manifest, plugin.toml, asks for it."),
                Text("This policy allows it to that plugin. What no rule allows is refused."),
                Text(
                    "Somebody agrees to it, for exactly these bytes. A high risk (the network,"
                    " changing files, seeing a secret, running a command) always takes a person."
                    f" {self._automatic()}"
                ),
                Text("Nothing denies it: a denial beats every rule that allows."),
            )
        )
        reviewed = ", and by reviewers as well" if self.policy.requirement.reviewed else ""
        yield Text(f"A plugin is loaded if it is signed by one of: {roles}{reviewed}.")

    def _automatic(self) -> str:
        names = [c.title for c in self.capabilities if c.name in self.policy.automatic]
        if not names:
            return "So does everything else."
        return f"Low and medium risks take none for: {', '.join(names)}. All else does."

    # -- what is allowed -----------------------------------------------------------------------

    def _plugins(self) -> Iterator[Block]:
        yield Heading(2, "What is allowed")
        selectors = [s for s in self.policy.selectors if any(s.allow.values()) or s.named]
        if not selectors:
            yield Text("Nothing: no rule allows anything to any plugin.")
            return
        yield Text("Where several of these name a plugin, what they allow adds up.")
        for selector in selectors:
            yield Heading(3, _who(selector.pattern))
            rows = tuple(self._rows(selector.allow))
            if rows:
                yield Grid(("Permission", "It may", "Risk", "Who agrees"), rows)
            if selector.named:
                table, units = selector.limits.meet(self.policy.ceiling).to_table(), limit_units()
                yield Grid(
                    ("Limit", "At most", "Default"),
                    tuple(
                        (
                            Mono(word),
                            Text(_amount(table[word], units[word])),
                            Text(_amount(DEFAULTS.to_table()[word], units[word])),
                        )
                        for word in table
                        if word in selector.named
                    ),
                )

    def _rows(self, rules: Mapping[str, tuple[Rule, ...]]) -> Iterator[tuple[Text | Mono, ...]]:
        for capability in self.capabilities:
            for rule in rules.get(capability.name, ()):
                for clause in rule.clauses:
                    risk, _ = capability.risk(clause)
                    yield (
                        Text(capability.title),
                        Text(in_words(clause, internal=self.internal)),
                        Text(risk.value),
                        Text(self._agrees(capability, clause)),
                    )

    def _agrees(self, capability: Capability[Any, Any], clause: Clause) -> str:
        risk, _ = capability.risk(clause)
        return _WHO[risk] if capability.name in self.policy.automatic else "a person agrees"

    def _denied(self) -> Iterator[Block]:
        yield Heading(2, "What is denied")
        groups: list[tuple[str, Mapping[str, tuple[Rule, ...]]]] = [("*", self.policy.deny)]
        groups += [(s.pattern, s.deny) for s in self.policy.selectors]
        rows = [
            (Text(_who(pattern)), Text(capability.title), Text(in_words(c, internal=self.internal)))
            for pattern, rules in groups
            for capability in self.capabilities
            for rule in rules.get(capability.name, ())
            for c in rule.clauses
        ]
        if rows:
            yield Grid(("Plugins", "Permission", "They never"), tuple(rows))
        else:
            yield Text("Nothing beyond what no rule allows.")

    # -- limits and tables ---------------------------------------------------------------------

    def _limits(self) -> Iterator[Block]:
        yield Heading(2, "Limits")
        yield Text(
            "A manifest may ask for other limits under [limits]. What is above the default takes a"
            " rule that names the plugin's limit, or a person who agrees; nothing goes above the most."
        )
        units, meanings = limit_units(), {kebab(f.name): f.metadata["doc"] for f in fields(Limits)}
        default, most = DEFAULTS.to_table(), self.policy.ceiling.to_table()
        yield Grid(
            ("Limit", "Default", "The most", "What it bounds"),
            tuple(
                (
                    Mono(word),
                    Text(_amount(min(default[word], most[word]), units[word])),
                    Text(_amount(most[word], units[word])),
                    Text(meanings[word].replace("`", "")),
                )
                for word in default
            ),
        )
        lowered = [word for word in default if most[word] < CEILING.to_table()[word]]
        if lowered:
            yield Text(f"This policy sets the most of: {', '.join(lowered)}.")

    def _others(self) -> Iterator[Block]:
        yield Heading(2, "Once it is in")
        yield from self._places()
        for word, title in (_TABLES | (_INTERNAL if self.internal else {})).items():
            table = getattr(self.policy, word, None)
            if table is None:
                continue
            rows = tuple(
                (Mono(name), Text(value), Text(meaning.replace("`", "")))
                for name, value, meaning in settings(table, internal=self.internal)
            )
            yield Heading(3, title)
            yield Grid(("Setting", "Value", "Meaning"), rows)

    def _places(self) -> Iterator[Block]:
        rule = self.policy.isolation.rule
        own = ", ".join(rule.process) or "what asks for it"
        native = f"only that of {', '.join(rule.native)}" if rule.native else "none"
        items = [
            f"In a process of its own: native code, and {own}.",
            f"Native code that may run: {native}.",
        ]
        if self.internal:
            items.append(
                f"Layers that must hold: {', '.join(sorted(self.policy.isolation.required))}."
            )
            items.append(
                f"Files without a manifest that may run: {', '.join(rule.legacy) or 'none'}."
            )
        yield Heading(3, "Where its code runs")
        yield Items(tuple(map(Text, items)))

    # -- for developers ------------------------------------------------------------------------

    def _ask(self) -> Iterator[Block]:
        owner = self.policy.owner or "the operator"
        yield Heading(2, "How to ask for more")
        yield Items(
            (
                Text("Ask for the least: one origin, one directory, the methods that you use."),
                Text("Write it into plugin.toml, with a line why = that a person will read."),
                Text("Mark what the plugin can do without as optional = true."),
                Text("Check the manifest, and have the operator explain what is missing:"),
            )
        )
        yield Code(
            "capwasm manifest check plugin.toml\ncapwasm grants explain plugin.toml --policy policy.toml"
        )
        yield Text(
            f"The second prints the lines of policy that would allow it. Send the manifest to {owner}:"
            " they decide on the lines, and on who agrees."
        )

    def _catalogue(self) -> Iterator[Block]:
        yield Heading(2, "All permissions that there are")
        yield Text("What a manifest can ask for. Whether it is granted is said above.")
        for entry in catalogue(self.capabilities):
            yield from _entry(entry)


def _entry(entry: Entry) -> Iterator[Block]:
    yield Heading(3, f"{entry.title}: {entry.header}")
    rows = tuple((Text(e.risk.value), Text(e.text), Text(e.why)) for e in entry.examples)
    if rows:
        yield Grid(("Risk", "For example, to", "Why"), rows)
    yield Grid(
        ("Word", "Value", "If left out", "Meaning"),
        tuple(
            (
                Mono(w.name),
                Text(w.values.replace("`", "")),
                Text("must stand") if w.required else Mono(w.default or "-"),
                Text(w.meaning),
            )
            for w in entry.words
        ),
    )
    for toml in dict.fromkeys(e.toml for e in entry.examples):
        yield Code(toml)
    functions = [
        (Mono(f"{name.partition('@')[0]}  {function}"), Text(said))
        for name, those in entry.interfaces.items()
        for function, said in those
    ]
    if functions:
        yield Grid(("Function", "What it does"), tuple(functions))


def _who(pattern: str) -> str:
    if pattern == "*":
        return "Every plugin"
    if pattern.endswith(".*"):
        return f"Every plugin whose id begins with {pattern[:-1]}"
    return pattern


def _amount(value: int, unit: str) -> str:
    if unit == "bytes":
        for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value % size == 0 and value >= size:
                return f"{value // size:,} {name}"
    if unit == "ms" and value % 1000 == 0:
        return f"{value // 1000:,} s"
    return f"{value:,}" if unit in ("count", "fuel") else f"{value:,} {unit}"
