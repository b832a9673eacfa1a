"""The sceptic: reloads everything, re-checks every claim, attacks the result, signs what it found.

Trusts the policy and trust file it was given and its own reference data; nothing of the owner's.
Never imports the owner.
"""
