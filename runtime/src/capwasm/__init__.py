"""capwasm: run signed, untrusted plugins with only the handles they were granted."""
