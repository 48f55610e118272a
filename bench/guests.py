"""The guests: the same algorithms as components for capwasm and the wheel, as modules for Extism."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import wasmtime

__all__ = ["guest", "large_component", "large_module"]

_HERE = Path(__file__).parent / "guests"
_LARGE = 1_100  # functions; about 100 kB of code


@cache
def guest(name: str) -> bytes:
    """The binary of `guests/<name>.wat`."""
    return bytes(wasmtime.wat2wasm((_HERE / f"{name}.wat").read_text(encoding="utf-8")))


@cache
def large_component() -> bytes:
    """About 100 kB of code in a component that exports `add`."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(component
            (core module $m {_filling()}
              (func (export "add") (param i32 i32) (result i32)
                (i32.add (local.get 0) (local.get 1))))
            (core instance $i (instantiate $m))
            (func (export "add") (param "a" u32) (param "b" u32) (result u32)
              (canon lift (core func $i "add"))))"""
        )
    )


@cache
def large_module() -> bytes:
    """The same code in an Extism module that exports `add`."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(module
            (import "extism:host/env" "input_load_u64" (func $load (param i64) (result i64)))
            (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
            (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
            (import "extism:host/env" "output_set" (func $output (param i64 i64)))
            {_filling()}
            (func (export "add") (result i32) (local $both i64) (local $at i64)
              (local.set $both (call $load (i64.const 0)))
              (local.set $at (call $alloc (i64.const 8)))
              (call $store (local.get $at) (i64.extend_i32_u (i32.add
                (i32.wrap_i64 (local.get $both))
                (i32.wrap_i64 (i64.shr_u (local.get $both) (i64.const 32))))))
              (call $output (local.get $at) (i64.const 8))
              (i32.const 0)))"""
        )
    )


def _filling() -> str:
    """Functions that nobody calls, each different; a compiler has to take them as they are."""
    step = """(local.set $x (i32.add (i32.mul (local.get $x) (i32.const {a})) (i32.const {b})))
      (if (i32.and (local.get $x) (i32.const {c}))
        (then (local.set $x (i32.xor (local.get $x) (local.get $y))))
        (else (local.set $y (i32.rotl (local.get $y) (local.get $x)))))"""
    one = """(func (param $x i32) (param $y i32) (result i32)
      {steps} (i32.sub (local.get $x) (local.get $y)))"""
    return "\n".join(
        one.format(
            steps="\n".join(
                step.format(a=2 * i + 1, b=i ^ 0x5A5A, c=1 << (i + k) % 31) for k in range(3)
            )
        )
        for i in range(_LARGE)
    )
