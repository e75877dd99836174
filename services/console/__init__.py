"""What the command line is made of: connecting to a server, one-sentence errors, tables, JSON, progress. Outermost, beside composition."""
