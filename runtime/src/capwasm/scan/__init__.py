"""Scanners: functions that look at a verified capsule and say what a reviewer should know."""
