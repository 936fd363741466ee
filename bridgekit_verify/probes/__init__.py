"""Tests of one link at a time, and the scenario that the tests run."""
