"""Test suites and doubles for extensions: conformance tests, faults, a manual clock."""
