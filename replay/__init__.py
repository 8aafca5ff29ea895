"""The offline tool: it reads a log, never a server, and tells what happened and why."""
