"""What owner and auditor say to each other: messages, signatures, transparency log, model files.

Assumes nothing about who is honest. Holds no opinion: no verdicts, no torch.
`SPEC.md` beside this file is normative; comments cite its clauses as `SPEC 3.2`.
"""
