"""Capsules: from bytes to `VerifiedArtifact`.  The only room that knows keys and signatures."""
