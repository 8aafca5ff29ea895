"""Prefect's REST API: client, models, errors."""
