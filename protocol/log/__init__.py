"""The transparency log: an append-only Merkle tree as static files, its checkpoints, witnesses and proofs.

`merkle`, `note`, `checkpoint`, `cosignature`, `tiles`, `proof` and `policy` work on bytes alone;
`tree` reads tiles through a `fetch` function; `files`, `store` and `witness` touch a folder; `verify`
reads a whole log and believes none of it. `http` reads one from a static server, `witness_http` answers
as a witness and `witness_client` asks one. Source: C2SP at commit 5ba5ee8. SPEC 5.
"""
