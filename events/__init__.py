"""The ground floor: states, events, decisions and the log. It does no I/O but the log's own."""
