"""Plugin repositories: static files over HTTP that prove by TUF what is new, and what is no more.

`client` reads one, `sources` all that the operator configured, `publish` makes one.  What comes out
of a repository is still a capsule that claims to be something: whoever installs it verifies its own
signature by the trust store.  TUF is the second wall.
"""
