"""Watching plugins while they run: strikes, traces, gauges, the live view, and what the core is told."""
