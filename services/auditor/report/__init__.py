"""The report people look at: folded from a log's entries alone, written as one HTML page that needs nothing else."""
