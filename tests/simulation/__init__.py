"""The whole daemon on a virtual clock, under faults."""
