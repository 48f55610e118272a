"""What `capwasm demo` plays: a whole life of one plugin, on this machine alone, in one directory.

Read `play.py` first: it is the example of how to embed the runtime.  `publisher.py` is what the
author of a plugin does, `owner.py` what the owner of the machine does, `service.py` is the web
service that the plugin talks to, and `story.py` says in words what each step shows.
"""
