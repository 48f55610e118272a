"""A guest that runs the Python it is sent: the whole SDK, and the library's ordinary ways."""

import contextlib
import datetime
import io
import json
import logging
import os
import pathlib
import random as std_random
import time
import uuid

import capwasm_guest
from capwasm_guest import clock, config, fetch, fs, kv, log, plugin, random, secrets
from capwasm_guest import exec as commands
from helper import DOUBLE

MADE_AT_BUILD = []


@plugin(interface="lab")
class Lab:
    def __init__(self) -> None:
        self.count = 0

    def run(self, source: str) -> str:
        self.count += 1
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(source, globals())
        return out.getvalue()

    def bare(self, source: str) -> None:
        exec(source, globals())

    def calls(self) -> int:
        self.count += 1
        return self.count * DOUBLE // 2


@plugin(interface="shapes")
class Shapes:
    def echo(self, item, color, rights, shape):
        return f"{item.name} {item.at[1]} {color.name} {sorted(r.name for r in rights)} {shape}"


def _give(self, source):
    return eval(source, globals())


for _name in "item items color rights shape bytes bool nested result".split():
    setattr(Shapes, f"give_{_name}", _give)
