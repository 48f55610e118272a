"""What may no longer run: a signed list, how it is kept, and who looks at it."""
