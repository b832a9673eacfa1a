"""The symbolic models of `threat_models/formal/`, run by Spin."""
