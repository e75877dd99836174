"""`fenrun import`: the CSV files of another system, sent as facts over the API, in order of time. docs/import-format.md is the format."""
