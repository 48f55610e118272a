"""`capwasm bindgen`: a typed Python module for the core, made of what a component exports.

    names.py    what each thing is called in Python; no two alike
    plan.py     which classes there are, and what each type is in an annotation
    text.py     lines of Python, laid out as `ruff format` does
    module.py   the module
    source.py   what it is made of, from a file

The component is anybody's.  Nothing of it stands in the module but names that were checked to be WIT
names, and text within string literals.
"""

from .module import generate
from .source import Source, read_source

__all__ = ["Source", "generate", "read_source"]
