"""The parts of test/bench."""
