"""Build the compact measured curves from the full tables (needs pandas; run by maintainers only)."""
