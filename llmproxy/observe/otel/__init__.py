"""Traces and metrics for an OpenTelemetry collector: the extra ``otel``. Nothing else imports what is in here."""
