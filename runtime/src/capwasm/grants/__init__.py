"""Grants: what is asked, what is allowed, what is consented, and what follows.  Pure, but for reading files."""
