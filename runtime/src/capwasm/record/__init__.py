"""The record: the audit log, redaction, metrics and log lines."""
