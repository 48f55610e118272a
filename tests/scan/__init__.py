"""Scanners: what each finds, and that it finds nothing in what is clean."""
