"""Black-box cases and dishonest counterparts."""
