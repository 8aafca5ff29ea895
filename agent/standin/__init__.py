"""A stand-in Prefect server for demos and simulation; the daemon never imports it."""
