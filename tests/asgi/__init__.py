"""Plugins that answer requests, as ASGI applications."""
