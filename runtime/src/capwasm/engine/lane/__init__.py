"""The bulk lane: lists and what holds them cross as one string, at the speed of memory."""
