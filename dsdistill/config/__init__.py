"""Options: nested tables from TOML and the command line, checked against dataclasses."""
