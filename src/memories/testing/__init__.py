"""Suites and doubles for those who extend the package: conformance, faults, a manual clock."""
