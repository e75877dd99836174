"""What every service shares and touches the outside: settings, event log, writer, server, embedded PostgreSQL. Knows no service."""
