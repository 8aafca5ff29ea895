"""Fast tests of single parts."""
