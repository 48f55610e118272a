"""Rules of `lint` on the network, and on the secrets that are sent over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from capwasm.caps.net.address import METADATA, PUBLIC, Network, classify
from capwasm.caps.net.model import ALL_METHODS, NetClause, NetOperation
from capwasm.caps.net.pattern import Subdomains
from capwasm.caps.net.url import parse_url
from capwasm.caps.secrets.model import SecretClause

from ._ground import Check, Ground, Lint, Place, found, overlaps

__all__ = ["CHECKS", "is_shared_suffix"]

MANY_PORTS: Final = 16
# Wider than these, nobody knows all that answers.
_WIDE: Final = {4: 16, 6: 48}

# Registries that hand out names below a second label: co.uk, com.au.
_SECOND_TEXT: Final = "ac co com edu gob gov go ltd me mil ne net nom or org plc sch"
_SECOND: Final = frozenset(_SECOND_TEXT.split())
# Where whoever has an account gets a name.  The best known; a list can't be whole.
_SHARED_TEXT: Final = """
    amazonaws.com s3.amazonaws.com execute-api.amazonaws.com elasticbeanstalk.com cloudfront.net
    amplifyapp.com on.aws awsapprunner.com azurewebsites.net windows.net blob.core.windows.net
    azureedge.net azurefd.net cloudapp.net cloudapp.azure.com trafficmanager.net azurestaticapps.net
    appspot.com run.app web.app firebaseapp.com firebaseio.com cloudfunctions.net
    storage.googleapis.com googleusercontent.com translate.goog blogspot.com
    github.io githubusercontent.com gitlab.io bitbucket.io herokuapp.com herokudns.com fly.dev
    onrender.com railway.app vercel.app now.sh netlify.app pages.dev workers.dev r2.dev
    trycloudflare.com deno.dev glitch.me repl.co replit.app replit.dev surge.sh
    digitaloceanspaces.com ondigitalocean.app linodeobjects.com backblazeb2.com wasabisys.com
    ngrok.io ngrok.app ngrok-free.app ngrok.dev loca.lt serveo.net localhost.run
    myshopify.com wordpress.com wixsite.com weebly.com webflow.io notion.site atlassian.net
    zendesk.com slack.com sharepoint.com service-now.com my.salesforce.com force.com
    dyndns.org duckdns.org no-ip.org ddns.net sslip.io nip.io xip.io
    pipedream.net requestbin.net webhook.site interact.sh oast.fun oast.pro oastify.com
    burpcollaborator.net
    """
_SHARED: Final = frozenset(_SHARED_TEXT.split())


def is_shared_suffix(name: str) -> bool:
    """Whether anybody can have a name below this one."""
    first, _, rest = name.partition(".")
    country = len(rest) == 2 and first in _SECOND
    regional = name.startswith(("s3.", "s3-")) and name.endswith(".amazonaws.com")
    return country or regional or name in _SHARED


def _clauses(ground: Ground) -> Iterator[tuple[Place, NetClause]]:
    for place in ground.places:
        for clause in place.rule.clauses:
            if isinstance(clause, NetClause):
                yield place, clause


def _net(ground: Ground) -> Iterator[Lint]:
    for place, clause in _clauses(ground):
        path, line = place.rule.path, place.rule.line
        if clause.scheme == "http" and not _is_loopback(clause):
            what = f"{clause.pattern} is read and changed by whoever stands on the way"
            yield found("net.plain-http", path, line, what, f"https://{clause.pattern[7:]}")
        if isinstance(clause.host, Subdomains) and is_shared_suffix(clause.host.suffix):
            what = f"anybody can have a name below {clause.host.suffix}"
            yield found("net.shared-suffix", path, line, what)
        if clause.methods == ALL_METHODS:
            what = f"every method is allowed at {clause.pattern}, DELETE too"
            yield found("net.every-method", path, line, what)
        low, high = clause.ports
        if high - low >= MANY_PORTS:
            what = f"{high - low + 1:,} ports are allowed at {clause.pattern}"
            yield found("net.many-ports", path, line, what)
        yield from _networks(place, clause)


def _networks(place: Place, clause: NetClause) -> Iterator[Lint]:
    path, line = place.rule.path, place.rule.line
    for network in _of(clause):
        if network.prefixlen < _WIDE[network.version]:
            what = f"{network} is {network.num_addresses:,} addresses"
            yield found("net.wide-network", path, line, what)
        kind = classify(network.network_address)
        if network.num_addresses == 1 and network.network_address in METADATA:
            what = f"{network.network_address} hands this machine's credentials to whoever asks"
            yield found("net.metadata", path, line, what)
        elif kind != PUBLIC and not _is_loopback(clause):
            yield found("net.private", path, line, f"{network} is {kind}")


def _of(clause: NetClause) -> list[Network]:
    if isinstance(clause.host, Network):
        return [clause.host]
    return sorted(clause.addresses, key=lambda n: (n.version, int(n.network_address)))


def _is_loopback(clause: NetClause) -> bool:
    """One address of this very machine, named as such: for a service beside it."""
    host = clause.host
    return isinstance(host, Network) and host.num_addresses == 1 and host.is_loopback


def _secrets(ground: Ground) -> Iterator[Lint]:
    net = list(_clauses(ground))
    for place in ground.places:
        for clause in place.rule.clauses:
            if isinstance(clause, SecretClause):
                yield from _secret(place, clause, net)


def _secret(
    place: Place, clause: SecretClause, net: list[tuple[Place, NetClause]]
) -> Iterator[Lint]:
    path, line = place.rule.path, place.rule.line
    if clause.use == "reveal":
        what = f"the plugin sees {clause.name}, and can pass it on"
        yield found("secret.reveal", path, line, what)
        return
    if clause.header is None:
        what = f"the manifest says in which header {clause.name} is sent"
        yield found("secret.any-header", path, line, what)
    for origin in sorted(clause.origins or ()):
        reach = [
            c
            for p, c in net
            if overlaps(p.selector.pattern, place.selector.pattern) and _reaches(c, origin)
        ]
        if not reach:
            what = f"no rule for the network reaches {origin}"
            yield found("secret.unsendable", path, line, what)
        wide = [c.pattern for c in reach if isinstance(c.host, Subdomains)]
        if wide:
            what = f"{origin}, where {clause.name} is sent, is reached by {wide[0]}"
            yield found("secret.wide-net", path, line, what)


def _reaches(clause: NetClause, origin: str) -> bool:
    """Whether some request to that origin is allowed."""
    url = parse_url(origin)
    path = clause.path.text
    return any(
        clause.allows(NetOperation(url.scheme, url.host, url.port, path, method))
        for method in clause.methods
    )


CHECKS: Final[tuple[Check, ...]] = (_net, _secrets)
