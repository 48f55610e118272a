"""Reviews: what was found in a plugin, who said yes to what, and what that is worth now.

Pure values and rules.  The registry keeps the records; nothing here reads a file or a clock.
"""
