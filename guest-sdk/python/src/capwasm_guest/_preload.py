"""Modules that Python's own library imports late.

A component holds what was imported while it was built, and has no library on disk to import from
later.  Where the standard library waits with an import until a function is used, that use would
fail in the plugin; so they are imported now.  It costs no time at run time and a little size.
"""

from __future__ import annotations

import _strptime  # type: ignore[import-not-found]
import datetime  # noqa: ICN001
import encodings.ascii
import encodings.cp1252
import encodings.idna
import encodings.latin_1
import encodings.utf_8
import encodings.utf_8_sig
import encodings.utf_16
import fnmatch
import glob
import json
import linecache
import logging
import os
import pathlib
import random
import re
import shutil
import string
import tempfile
import time
import traceback

__all__: list[str] = []

_KEPT = (
    _strptime, datetime, encodings, fnmatch, glob, json, linecache, logging, os, pathlib, random,
    re, shutil, string, tempfile, time, traceback,
)  # fmt: skip
