"""The threat catalogue as data: one YAML file for each threat, read by `auditor.threats`; see README.md."""
