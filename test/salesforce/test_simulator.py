#!/usr/bin/python3
"""Tests of the simulator itself.  Names of tests may be given: test_simulator.py TestQuery.test_where"""
import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wildcard-import,unused-wildcard-import,wrong-import-position
from selftest.access import *  # noqa: E402,F401,F403
from selftest.bulk import *  # noqa: E402,F401,F403
from selftest.many import *  # noqa: E402,F401,F403
from selftest.org import *  # noqa: E402,F401,F403
from selftest.query import *  # noqa: E402,F401,F403
from selftest.records import *  # noqa: E402,F401,F403

if __name__ == "__main__":
    unittest.main()
