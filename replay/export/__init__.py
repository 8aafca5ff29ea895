"""A log in the formats of other tools: `replay export` (`replay.commands.exporting`).

Each module writes one format, as a stream: it holds what is open at a time, never the whole log.
"""
