"""The structures of `capwasm_plugin.h`, as ctypes has them.  Tests compare both, member by member.

Text and bytes have two forms of one layout.  `Span` is read: its pointer is a number, since what it
points at ends by its size and not by a NUL.  `Out` is written: its pointer takes a bytes object.
"""

from __future__ import annotations

import ctypes
from typing import Final

from .native_table import TABLES

__all__ = [
    "ABI",
    "ABORTED",
    "BAD_ARGUMENT",
    "OK",
    "TOO_LARGE",
    "Description",
    "Host",
    "Info",
    "Mount",
    "Out",
    "OutPair",
    "Output",
    "Request",
    "Result",
    "Span",
    "SpanPair",
]

ABI: Final = 1

OK: Final = 0
ABORTED: Final = -1
BAD_ARGUMENT: Final = -2
TOO_LARGE: Final = -3


class Span(ctypes.Structure):
    """`capwasm_text` or `capwasm_bytes`, to be read."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class SpanPair(ctypes.Structure):
    """`capwasm_log_field` or `capwasm_fetch_header`, to be read."""

    _fields_ = (("first", Span), ("second", Span))


class Request(ctypes.Structure):
    """`capwasm_fetch_request`."""

    _fields_ = (
        ("method", Span),
        ("url", Span),
        ("headers", ctypes.c_void_p),
        ("header_count", ctypes.c_size_t),
        ("body", Span),
        ("timeout_ms", ctypes.c_void_p),
        ("redirects", ctypes.c_int32),
    )


class Out(ctypes.Structure):
    """`capwasm_text` or `capwasm_bytes`, to be written."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


class OutPair(ctypes.Structure):
    """`capwasm_fetch_header` or `capwasm_config_setting`, to be written."""

    _fields_ = (("first", Out), ("second", Out))


class Mount(ctypes.Structure):
    """`capwasm_fs_mount`."""

    _fields_ = (
        ("path", Out),
        ("access", ctypes.c_int32),
        ("quota_bytes", ctypes.c_void_p),
        ("used_bytes", ctypes.c_uint64),
    )


class Info(ctypes.Structure):
    """`capwasm_fs_info`."""

    _fields_ = (
        ("name", Out),
        ("kind", ctypes.c_int32),
        ("size", ctypes.c_uint64),
        ("modified_ns", ctypes.c_uint64),
    )


class Output(ctypes.Structure):
    """`capwasm_exec_output`."""

    _fields_ = (
        ("code", ctypes.c_void_p),
        ("stdout_bytes", Out),
        ("stderr_bytes", Out),
        ("stdout_truncated", ctypes.c_uint8),
        ("stderr_truncated", ctypes.c_uint8),
    )


class Host(ctypes.Structure):
    """`capwasm_host`."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        *((table.member, ctypes.c_void_p) for table in TABLES),
    )


class Description(ctypes.Structure):
    """`capwasm_description`."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("name", Span),
        ("topics", ctypes.c_void_p),
        ("topic_count", ctypes.c_size_t),
    )


class Result(ctypes.Structure):
    """`capwasm_result`."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))
