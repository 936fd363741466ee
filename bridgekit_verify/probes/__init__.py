"""Tests of one link at a time, and the fixture that they share."""
