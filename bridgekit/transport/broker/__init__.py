"""Persistent logs."""
