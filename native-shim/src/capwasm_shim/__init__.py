"""The process that plugins run in when they don't run in the core's own: sandbox first, then load.

Nothing here decides what a plugin may do.  The host's broker does, with the same grants as for plugins
in its own process; this package builds the walls, loads the code and carries questions and answers.
It imports nothing of `capwasm`.
"""
