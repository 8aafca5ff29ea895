"""Kept logs of every release, and the script that makes one."""
