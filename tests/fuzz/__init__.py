"""Every parser of protocol/ and auditor/ against bytes that nobody meant: only our errors come out."""
