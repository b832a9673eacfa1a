"""Asking a live endpoint what it serves.

`endpoint` says whom and how often, `probes` what, `inference` in which words, `client` over which wire, `pacing` when,
`journal` what came back, `run` does all of that, `compare` and `spread` say what it means.

Source: Open Inference Protocol v2 (REST), https://github.com/kserve/open-inference-protocol; decision 0022.
"""
