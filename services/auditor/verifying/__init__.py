"""Verifying a bundle: no database, no network, nothing believed but the public key. docs/audit-bundle.md gives each check in words."""
