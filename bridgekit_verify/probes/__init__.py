"""Tests of one link at a time, and the scenario that all of them use."""
