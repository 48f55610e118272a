"""The admin page: what reviewers and operators see and do in a browser (`capwasm serve`).

An application that embeds the runtime may mount it, behind a sign-in of its own or not::

    from starlette.applications import Starlette
    from starlette.routing import Mount
    from capwasm import admin

    token = admin.new_token()
    page = admin.app("/var/lib/my-app/plugins", token=token, hosts=["app.example"], mounted=True)
    core = Starlette(routes=[Mount("/plugins-admin", page)])

It needs the extra `admin`; importing `capwasm` imports none of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capwasm.errors import AdminError

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey

    from .asgi import AdminApp

__all__ = ["app", "new_token", "require_extra"]


def new_token() -> str:
    """A token of 256 bits: whoever shows it is let in."""
    return secrets.token_urlsafe(32)


def require_extra() -> None:
    """Pass if what the page is made with is installed.

    Raises:
        AdminError: `admin.serve`.
    """
    try:
        import jinja2
        import starlette
    except ImportError as exc:
        raise AdminError(
            f"the page needs more than is installed ({exc.name}); run: pip install 'capwasm[admin]'",
            code="admin.serve",
        ) from None
    del jinja2, starlette


def app(
    home: str | Path,
    *,
    token: str,
    hosts: Collection[str],
    user: str = "",
    key: PrivateKey | None = None,
    secure: bool = True,
    mounted: bool = False,
    **limits: Any,
) -> AdminApp:
    """The admin page of one home directory, as an ASGI application.

    Nothing is read before the first request.

    Args:
        home: the runtime's directory.
        token: what a person must show; see `new_token`.
        hosts: what a request's `Host` may be, with the port if it is not the usual one; every other
            is refused.
        user: who acts where there is no key; the user of the process if empty.
        key: of a reviewer: what is approved, rejected or excepted by the page is signed with it.
        secure: whether browsers see it over https, by whomever TLS is ended.
        mounted: whether it stands below a path of another application.
        limits: `max_body` in bytes, `body_seconds`.

    Raises:
        AdminError: `admin.serve`: the extra is not installed.
        ValueError: the token is too short, or no host is named.
    """
    require_extra()
    from capwasm.caps import standard_capabilities
    from capwasm.home import Home

    from .asgi import AdminApp
    from .office import Office

    if not hosts:
        raise ValueError("name the hosts that it answers for")
    office = Office(
        Home(Path(home)), user=user or _user(), key=key, capabilities=standard_capabilities()
    )
    return AdminApp(
        office,
        token=token,
        hosts={h.lower() for h in hosts},
        secure=secure,
        mounted=mounted,
        **limits,
    )


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        return "unknown user"
