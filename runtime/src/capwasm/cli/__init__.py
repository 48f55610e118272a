"""The `capwasm` command."""
