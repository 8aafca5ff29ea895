"""The daemon: it discovers flow runs, submits them, and watches what runs. All I/O is here."""
