"""The claimant: commits to model and data, makes patches, signs certificates, answers challenges.

Trusts its own files, and nothing that comes from outside. Signs no claim that it did not check
itself first. Never imports the auditor.
"""
